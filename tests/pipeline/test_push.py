"""Uploads to a real hub on loopback; what a user sees where there is none, or no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from chat_server import closed_address
from hub_server import hub
from safepref.errors import InputError
from safepref.pipeline.push import check_repo_id, push

TOKEN = "hf_only_for_this_test"


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to upload; this process has no login, and large files go the way of a hub without Xet."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 20)
    return folder


def test_every_file_reaches_the_hub(
    export: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub(TOKEN) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        # Without an owner the hub itself says whose the repository is.
        assert push(export, "safe-model", private=True) == f"{running.url}/someone/safe-model"
        assert push(export, "safe-model") == f"{running.url}/someone/safe-model"  # again, where it is there
    (files,) = running.repositories.values()
    assert files == {file.name: file.read_bytes() for file in export.iterdir()}
    assert running.made == [("someone/safe-model", True)]
    assert TOKEN not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("token", "served", "expected"),
    [
        (None, True, "no token; run `hf auth login` or set HF_TOKEN"),
        (TOKEN, True, "401"),
        (TOKEN, False, "refused"),
    ],
    ids=["no token", "another's token", "no hub"],
)
def test_what_the_hub_refuses_is_one_line_without_the_token(
    export: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, served: bool, expected: str
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with hub("another") as running:
        address = running.url if served else closed_address().removesuffix("/v1")
        monkeypatch.setattr(constants, "ENDPOINT", address)
        with pytest.raises(InputError) as refused:
            push(export, "me/safe")
    said = str(refused.value)
    assert said.startswith("--push me/safe: no") and expected in said and "\n" not in said
    assert f"the export stays in {export}" in said and TOKEN not in said
    assert not running.repositories and (export / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["a/b/c", "me/../you", "me/with space", ""])
def test_what_is_no_hub_id_is_refused_before_any_work(name: str) -> None:
    with pytest.raises(InputError, match="--push"):
        check_repo_id(name)
