"""Assets are pinned by hash; a wrong byte, a missing file or a way out of the folder is an error."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from safepref import assets
from safepref.errors import InputError
from safepref.store import sha256_file


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one small wheel in place of the pinned table; downloads are forbidden."""
    monkeypatch.setenv("SAFEPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAFEPREF_OFFLINE", "1")
    wheel = tmp_path / "cache" / "wheels" / "tiny-1-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/data/a.txt", "alpha")
        archive.writestr("tiny/data/b.txt", "beta")
    row = {
        "package": "tiny",
        "version": "1",
        "file": wheel.name,
        "bytes": wheel.stat().st_size,
        "sha256": sha256_file(wheel),
        "licence": "MIT",
        "what": "a test",
        "prefix": "tiny/data/",
    }
    alpha = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8"
    pinned = {"wheel": "tiny", "path": "a.txt", "sha256": alpha}
    wrong = {"wheel": "tiny", "path": "b.txt", "sha256": alpha}
    table = {"wheels": {"tiny": row}, "members": {"first": pinned, "second": wrong}}
    monkeypatch.setattr(assets, "_table", lambda: table)
    return wheel


def test_members_come_out_of_the_wheel(planted: Path) -> None:
    assert assets.fetch("first").read_text() == "alpha"
    assert assets.fetch("tiny/b.txt").read_text() == "beta"


def test_a_pinned_member_with_other_content_is_refused(planted: Path) -> None:
    with pytest.raises(InputError, match="SHA-256 differs"):
        assets.fetch("second")


def test_a_damaged_copy_in_the_cache_is_replaced(planted: Path) -> None:
    place = assets.fetch("first")
    place.write_text("tampered")
    assert assets.fetch("first").read_text() == "alpha"


def test_a_damaged_wheel_is_not_used(planted: Path) -> None:
    planted.write_bytes(b"?" + planted.read_bytes()[1:])
    with pytest.raises(InputError, match="SAFEPREF_OFFLINE=1"):
        assets.fetch("tiny/b.txt")


@pytest.mark.parametrize("name", ["other", "tiny/../../x", "tiny", ""])
def test_unknown_names_list_the_known_ones(planted: Path, name: str) -> None:
    with pytest.raises(InputError, match="known assets: first"):
        assets.fetch(name)


def test_a_member_that_is_not_there_is_named(planted: Path) -> None:
    with pytest.raises(InputError, match=r"has no 'c\.txt'"):
        assets.fetch("tiny/c.txt")


def test_every_row_of_the_real_table_is_pinned() -> None:
    assert all(len(wheel.sha256) == 64 for wheel in assets.wheels().values())
    for name in ("smollm2-135m-instruct.gguf", "minilm/model.safetensors", "tox-block/encoder.pkl"):
        assert len(assets.member(name).sha256 or "") == 64
