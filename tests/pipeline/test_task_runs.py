"""A run of another task goes through the same stages and files as one of safety."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import SAYINGS, save_tiny_model, start, tiny_recipe, write_inputs

from safepref.report import write_report
from safepref.report.card import Exported, model_card
from safepref.report.documents import document_tables
from safepref.report.folder import read_run
from safepref.store import read_json, read_jsonl
from safepref.tradeoff.base import Base

pytestmark = pytest.mark.assets

NAMES = ("spam ", "insult ", "none ")
WORDS = ("river", "stone", "lamp", "cloud", "horse", "train", "paper", "glass", "bread", "salt")


def moderation(folder: Path, **training: Any) -> Any:
    """A recipe over texts of three categories, for a model that says their names."""
    write_inputs(folder)
    save_tiny_model(folder / "model", NAMES)
    rows = [
        {"text": f"{word} {n} {word[::-1]} {name}", "category": name.strip()}
        for n, (word, name) in enumerate((word, name) for word in WORDS for name in NAMES)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = tiny_recipe(folder)
    data = {**plain.data.model_dump(), "pairs": None, "task": 8, "prompts": str(folder / "texts.jsonl")}
    asked = {**plain.evaluation.model_dump(), "prompts": None, "limit": 6, "answer_tokens": 1}
    more = {"training": {**plain.training.model_dump(), **training}, "evaluation": asked}
    judges = {"select": "select", "report": "report"}
    return tiny_recipe(folder, task="moderation", methods="dpo", data=data, judges=judges, **more)


def test_a_moderation_run_is_chosen_reported_and_continued_like_any_other(tmp_path: Path) -> None:
    stopping = {"every": 1, "patience": 1, "prompts": 2, "answer_tokens": 1}
    recipe, out = moderation(tmp_path, stopping=stopping), tmp_path / "run"
    start(recipe, out)
    results = read_json(out / "results.json")
    dpo = results["methods"]["dpo"]
    for scores in (results["base"], dpo["scores"], dpo["choose"]["1"]):
        task = scores["task"]
        assert {"name", "rate", "interval", "n", "unscored", "by_category", "confusion"} <= set(task)
        assert (task["name"], task["measure"], scores["safety"]) == ("moderation", "accuracy", None)
        assert scores["over_refusal"]["n"] > 0 and scores["capability"]["mean"] is not None
    assert "accuracy" in results["recommended"]["why"] and results["recommended"]["method"] == "dpo"
    pairs = read_jsonl(out / "data" / "pairs.jsonl")
    assert len(pairs) == 8 and {pair["chosen"] for pair in pairs} <= {"spam", "insult", "none"}
    reported, chosen = (
        {row["prompt"] for row in read_jsonl(out / "samples" / f"{name}.jsonl") if row["suite"] == "task"}
        for name in ("report.dpo", "choose.dpo@1")
    )
    trained = {pair["messages"][-1]["content"] for pair in pairs}
    assert reported and chosen and not (reported & chosen or trained & (reported | chosen))
    curve = dpo["training"]["selection"]["curve"]
    assert curve and all(0 <= point["safety"] <= 1 for point in curve)
    logged = [json.loads(path.read_text()) for path in (out / "logs" / "inspect").glob("*report.base*.json")]
    metrics = next(s["metrics"] for s in logged[0]["results"]["scores"] if s["name"] == "task")
    assert metrics["accuracy"]["value"] == results["base"]["task"]["rate"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What is taken for what" in page and "Moderation report" in page
    assert "Published, before" not in page
    assert results["tradeoff"]["front"] and "dpo" in results["tradeoff"]["hypervolume"]
    tables = [document_tables([out], kind) for kind in ("methods", "strengths", "front")]
    assert all("accuracy" in text and "safety" not in text for text in tables)
    base = Base("made/model", True, None)
    card = model_card(read_run(out), Exported("dpo", 1.0, False, base, "float32"))
    assert "preference optimization for moderation" in card and "### Accuracy by category" in card
    assert "Attack success" not in card and "Global safety" not in card and "Macro-F1" in card
    # What is done stands: without its report alone, the same results come again.
    before = (out / "results.json").read_bytes()
    manifest = read_json(out / "manifest.json")
    manifest["stages"] = [s for s in manifest["stages"] if s["name"] not in ("report", "evaluate:report:dpo")]
    (out / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(out / "work" / "samples" / "report" / "dpo")
    start(recipe, out)
    assert (out / "results.json").read_bytes() == before
    write_report(out)


def test_a_support_run_goes_through_the_same_stages(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    save_tiny_model(tmp_path / "model", SAYINGS)
    plain = tiny_recipe(tmp_path)
    data = {**plain.data.model_dump(), "pairs": None, "general": 0, "task": 6, "answer_tokens": 2}
    asked = {
        **plain.evaluation.model_dump(),
        "prompts": None,
        "limit": 4,
        "answer_tokens": 2,
        "choose": False,
    }
    judges = {"select": "select", "report": "report"}
    recipe = tiny_recipe(tmp_path, task="support", methods="dpo", data=data, evaluation=asked, judges=judges)
    out = tmp_path / "run"
    start(recipe, out)
    scores = read_json(out / "results.json")["methods"]["dpo"]["scores"]
    task = scores["task"]
    assert (task["name"], task["judge"], task["second"]["judge"]) == (
        "support",
        "support.report",
        "support.select",
    )
    assert task["rate"] + task["bad"] + task["unscored"] == pytest.approx(1) and task["n"] == 4
    assert "macro_f1" not in task and scores["toxicity"] is None
    rows = [row for row in read_jsonl(out / "samples" / "report.dpo.jsonl") if row["suite"] == "task"]
    assert any(len(row["messages"]) > 1 for row in rows)
    cards = read_json(out / "judges.json")
    assert cards["report"]["calibration"]["data"] == "support-select"
    assert "Support report" in (out / "report.html").read_text(encoding="utf-8")
