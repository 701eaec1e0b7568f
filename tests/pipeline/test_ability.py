"""Whether ability is kept, in a run and by `safepref evaluate`: the base is asked once, points are paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import SAYINGS, command, save_tiny_model, start, tiny_recipe, write_inputs

from safepref.data.starter import load_starter
from safepref.errors import InputError
from safepref.pipeline.ability import add_ability
from safepref.pipeline.inputs import check_names
from safepref.pipeline.prompts import FOREIGN, gather
from safepref.recipe import load_recipe
from safepref.store import read_json, read_jsonl, write_jsonl

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    save_tiny_model(folder / "speaker", SAYINGS)
    rows = [
        {"question": f"What is {n} + 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(3)
    ]
    (folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ability(folder: Path, **changes: Any) -> dict[str, Any]:
    asked = tiny_recipe(folder).evaluation.model_dump(mode="json")
    return {
        **asked,
        "strengths": [0.5],
        "limit": 3,
        "chat": ["questions", "arithmetic", str(folder / "task.jsonl")],
        "nats": [str(folder / "gsm8k.jsonl")],
        **changes,
    }


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ability"
    model = {"id": str(source / "speaker"), "dtype": "float32"}
    start(tiny_recipe(source, methods="dpo", model=model, evaluation=ability(source)), out)
    return out


def test_a_run_scores_ability_and_pairs_it_with_the_base(done: Path) -> None:
    results = read_json(done / "results.json")
    base, tuned = results["base"], results["methods"]["dpo"]["scores"]
    assert base["ordinary"]["perplexity"]["ratio"] == 1.0 and "changes" not in base
    assert tuned["ordinary"]["n"] == 3 and tuned["ordinary"]["perplexity"]["ratio"] > 0
    assert set(tuned["capability"]["chat"]) == {"questions", "arithmetic", "task"}
    assert tuned["capability"]["chat"]["arithmetic"]["n"] == 0, "a random model gets no family right"
    assert tuned["capability"]["nats"]["gsm8k"] > 0
    assert list(tuned["capability"]["tasks"]) == ["task"]
    assert tuned["capability"]["above_chance"] == base["capability"]["above_chance"]
    found = tuned["changes"]
    assert found["nats.gsm8k"]["value"] == pytest.approx(
        tuned["capability"]["nats"]["gsm8k"] - base["capability"]["nats"]["gsm8k"]
    )
    assert {"capability", "ordinary", "perplexity", "chat.questions", "chat.task"} <= set(found)
    choose = results["methods"]["dpo"]["choose"]["0.5"]
    assert choose["ordinary"]["n"] == 3 and set(choose["capability"]["chat"]) == {"questions", "arithmetic"}
    targets = {
        row["target"] for row in read_jsonl(done / "samples" / "report.dpo.jsonl") if row["suite"] == "nats"
    }
    assert "It is 1.\n#### 1" in targets
    assert "ability-table" in (done / "report.html").read_text()


def test_the_base_answers_once_and_its_families_are_written(done: Path) -> None:
    stages = [stage["name"] for stage in read_json(done / "manifest.json")["stages"]]
    assert stages.index("base") < stages.index("evaluate:report:base")
    answers = read_jsonl(done / "work" / "base" / "report.jsonl")
    said = {row["id"]: row["text"] for row in answers}
    rows = [row for row in read_jsonl(done / "samples" / "report.base.jsonl") if row["suite"] == "ordinary"]
    assert {row["id"]: row["response"] for row in rows} == said
    assert read_json(done / "work" / "base" / "families.json")["selected"] == []


def test_nothing_that_is_ordinary_or_asked_in_the_chat_is_trained_on(tmp_path: Path) -> None:
    plain = gather(load_recipe())
    assert len(plain.report.ordinary) == 48 and len(plain.choose.ordinary) == 24
    assert not {p.category for p in plain.report.ordinary} & set(FOREIGN)
    assert plain.dropped == {"harmful": 0, "harmless": 0, "general": 0, "pairs": 0}
    trained = {prompt.text for prompt in plain.general}
    assert not trained & {p.text for suite in (plain.choose, plain.report) for p in suite.ordinary}
    taken = load_starter("general", "train")[0].text
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": taken}) + "\n")
    found = gather(load_recipe(None, [f"evaluation.ordinary={path}", "evaluation.capability_rows=null"]))
    assert [prompt.text for prompt in found.report.ordinary] == [taken]
    assert taken not in {prompt.text for prompt in found.general} and found.dropped["general"] == 1
    whole = {task.name: len(task.rows) for task in found.report.capability}
    assert whole["piqa"] > 1000 and whole["arithmetic"] == 100


@pytest.mark.parametrize("key", ["chat", "nats"])
def test_a_name_that_stands_for_nothing_is_refused_before_anything_is_done(source: Path, key: str) -> None:
    recipe = tiny_recipe(source, evaluation=ability(source, **{key: ["nowhere.jsonl"]}))
    with pytest.raises(InputError, match=rf"evaluation\.{key}: nowhere\.jsonl: no such file"):
        check_names(recipe)


@pytest.mark.slow
def test_the_command_takes_the_model_itself_or_another_for_the_base(source: Path, tmp_path: Path) -> None:
    out, asked = tmp_path / "out.json", tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"Name bird {n}."}) + "\n" for n in range(3)))
    options = ["--ordinary", asked, "--chat", "questions", "--chat", "arithmetic", "--limit", 2]
    options += ["--nats", source / "gsm8k.jsonl", "--capability", "arithmetic", "--dtype", "float32"]
    options += ["--answer-tokens", 8, "--json", out, "--judge", "keyword-refusal"]
    code, _, said = command("evaluate", "--model", source / "speaker", *options)
    assert code == 0, said
    assert "one_digit_addition: the base gets 0% of" in said
    mine = read_json(out)["scores"]
    assert mine["ordinary"]["perplexity"]["ratio"] == 1.0 and mine["capability"]["tasks"] == {
        "arithmetic": 0.0
    }
    code, _, said = command("evaluate", "--model", source / "model", "--base", source / "speaker", *options)
    assert code == 0, said
    assert read_json(out)["scores"]["ordinary"]["perplexity"]["ratio"] != 1.0


@pytest.mark.parametrize(
    ("strength", "file"), [("1/0.6/1", "dpo@1_0.6_1"), (0.8, "dpo@0.8"), (1.0, "dpo")], ids=str
)
def test_the_recommended_point_has_its_changes_at_any_strength(
    strength: float | str, file: str, tmp_path: Path
) -> None:
    def rows(*answered: bool) -> list[dict[str, Any]]:
        return [
            {"suite": "ordinary", "id": f"{n}", "base_id": f"{n}", "answered": said}
            for n, said in enumerate(answered)
        ]

    write_jsonl(tmp_path / "samples" / "report.base.jsonl", rows(True, True, True, True))
    write_jsonl(tmp_path / "samples" / f"report.{file}.jsonl", rows(True, False, True, True))
    point = {"method": "dpo", "strength": strength, "scores": {"capability": None}}
    results = {"base": {"capability": None}, "methods": {}, "recommended": point}
    add_ability(results, tmp_path)
    assert point["scores"]["changes"]["ordinary"]["value"] == 0.25
