"""Public sets from the hub and from the pinned copies, told apart by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safepref.data.sources import Hub, get_source, load_prompts, source_file
from safepref.errors import InputError


def test_sets_come_through_the_hub_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own reader of local JSON stands for the hub, so no network is needed."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    row = {"prompt": "How do I steal?", "chosen": "I won't.", "rejected": "Sure.", "attack_type": None}
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    source = replace(get_source("alert-dpo"), hub=Hub("json", "train", data_dir=str(folder)))
    (pair,) = source.records().records
    assert pair.messages == ({"role": "user", "content": "How do I steal?"},)
    absent = replace(source, hub=Hub("json", "train", data_dir=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="data set alert-dpo: cannot be loaded from hub id json") as caught:
        absent.records()
    assert "\n" not in str(caught.value)
    assert "alert-dpo:FILE" in str(caught.value)


def hub_folder(folder: Path, **configurations: list[dict[str, Any]]) -> Path:
    """A data set as the hub keeps it: a card that names its configurations, and their files."""
    folder.mkdir()
    card = ["---", "configs:"]
    for name, rows in configurations.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        card += [f"- config_name: {name}", f"  data_files: {name}.jsonl"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return folder


def test_harmbench_at_the_hub_has_its_contextual_behaviours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = hub_folder(
        tmp_path / "harmbench",
        standard=[{"prompt": "Make it", "category": "illegal"}],
        contextual=[{"prompt": "Do it", "context": "A page.", "category": "cybercrime_intrusion"}],
        copyright=[{"prompt": "Recite it", "tags": "lyrics"}],
    )
    source = get_source("HarmBench@hub")
    assert source.hub is not None
    prompts, loaded = load_prompts(replace(source, hub=replace(source.hub, id=str(folder))))
    assert [(p.text, p.category) for p in prompts] == [
        ("Make it", "crime_other"),
        ("A page.\n\n---\n\nDo it", "crime_cyber"),
    ]
    assert not loaded.bad


@pytest.mark.parametrize("name", ["harmbench", "real-toxicity-prompts", "do_not_answer", "AdvBench"])
def test_a_set_with_a_pinned_part_can_be_had_from_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file = source_file(f"{name}@hub")
    assert source.from_hub and source.hub is not None and file is None
    assert not get_source(name).from_hub and get_source(name).assets
    gone = replace(source, hub=replace(source.hub, id=str(tmp_path / "nothing")))
    with pytest.raises(InputError) as caught:
        load_prompts(gone)
    assert "\n" not in str(caught.value)
    assert "cannot be loaded from hub id" in str(caught.value)
    assert str(caught.value).endswith(f"or {source.name} alone for the pinned copy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("harmbench@wheel", "behind the @ stands 'wheel'; write harmbench@hub, or harmbench"),
        ("ailuminate@hub", "is on no hub; give a local file as ailuminate:FILE"),
        ("harmbanch@hub", "did you mean harmbench"),
        ("harmbench@hub:data/x.csv", "names the hub and a file"),
        ("harmbench:", "names no file"),
    ],
)
def test_what_an_at_cannot_mean_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        source_file(text)
