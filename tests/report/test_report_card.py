"""The model card's tables and record: what a run trained on, and each split's base beside the point."""

from __future__ import annotations

from pathlib import Path

from run_folder import build_run

from safepref.report.card import Exported, model_card
from safepref.report.card_make import trained_sets
from safepref.report.folder import read_run
from safepref.store import read_json, write_json
from safepref.tradeoff.base import Base

BASE = Base("me/tiny", True, "mit")


def test_sets_are_found_in_every_key_that_names_them() -> None:
    data = {
        "prompts": ["starter", "alert:here/alert.jsonl", "mine.jsonl"],
        "harmless_prompts": None,
        "general_prompts": "extended",
        "pairs": "pku-saferlhf@hub",
    }
    found = [source.name for source in trained_sets({"data": data})]
    assert found == ["alert", "pku-saferlhf"]


def test_a_card_of_the_choose_split_has_its_base_where_that_was_asked(tmp_path: Path) -> None:
    build_run(tmp_path, ("nca",), plain=12, strengths=(0.6, 0.8))
    made = Exported("nca", 0.6, False, BASE, "float32")
    results = read_json(tmp_path / "results.json")
    tried = results.get("tradeoff") or {}
    for base in (results["base"], None):
        write_json(tmp_path / "results.json", {**results, "tradeoff": {**tried, "base": base}})
        text = model_card(read_run(tmp_path), made)
        row = next(line for line in text.splitlines() if line.startswith("| Global safety"))
        assert ("not measured" in row) == (base is None)
        assert ("The base was not measured on these prompts." in text) == (base is None)


def test_ability_kept_stands_on_the_card(tmp_path: Path) -> None:
    build_run(tmp_path, ("nca",), plain=12, strengths=(0.8,))
    results = read_json(tmp_path / "results.json")
    asked = {"refused": 0.25, "interval": [0.1, 0.4], "n": 20, "perplexity": None}
    results["methods"]["nca"]["scores"]["ordinary"] = asked
    write_json(tmp_path / "results.json", results)
    text = model_card(read_run(tmp_path), Exported("nca", 1.0, False, BASE, "float32"))
    part = text.partition("### Ability kept")[2].partition("### Judges")[0]
    assert "| Ordinary requests not answered | not measured | 25.0 % (10.0 to 40.0 %) |" in part


def test_a_merge_is_not_said_to_be_a_method(tmp_path: Path) -> None:
    build_run(tmp_path, ("nca", "dpo"), plain=12, strengths=(0.8,))
    results = read_json(tmp_path / "results.json")
    merged = {"methods": ["nca", "dpo"], "how": "cat", "weights": [0.5, 0.5]}
    results["methods"]["both"] = {**results["methods"]["nca"], "training": {"merged": merged}}
    write_json(tmp_path / "results.json", results)
    text = model_card(read_run(tmp_path), Exported("both", 1.0, False, BASE, "float32"))
    assert "the methods that it is merged of (cat of NCA 0.5, DPO 0.5)" in text
