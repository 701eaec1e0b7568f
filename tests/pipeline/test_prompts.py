"""What a run asks: nothing is both learned from, chosen by and reported on, however it is spelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safepref.data.starter import load_starter
from safepref.errors import InputError
from safepref.pipeline.prompts import gather
from safepref.recipe import load_recipe

pytestmark = pytest.mark.assets


def test_no_sum_is_both_chosen_by_and_reported_on() -> None:
    found = gather(load_recipe())
    sides = [
        {row["question"] for task in suite.capability if task.name == "arithmetic" for row in task.rows}
        for suite in (found.choose, found.report)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_general_requests_that_stand_in_evaluation_are_not_learned_from(tmp_path: Path) -> None:
    taken = load_starter("general", "train")[0].text
    path = tmp_path / "benign.jsonl"
    path.write_text(json.dumps({"prompt": taken}) + "\n" + json.dumps({"prompt": "Why is my cactus brown?"}))
    found = gather(load_recipe(None, [f"evaluation.benign={path}"]))
    assert taken not in {prompt.text for prompt in found.general}
    assert found.dropped["general"] >= 1


def test_one_file_spelled_in_two_ways_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verbs = ["steal", "burn", "forge", "hack", "bribe", "rob", "smuggle", "stalk", "poison", "wreck", "dump"]
    rows = [{"prompt": f"{v} the {n} {v}ed things of office {v}"} for n, v in enumerate(verbs * 4)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = gather(load_recipe(None, ["data.prompts=a.jsonl", "evaluation.prompts=./a.jsonl"]))
    asked = {prompt.request for prompt in found.report.safety}
    assert found.harmful and asked
    assert not asked & {prompt.text for prompt in found.harmful}


def test_arithmetic_can_stand_beside_the_users_own_tasks(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "Which?", "choices": ["a", "b"], "answer": 0}) + "\n")
    found = gather(load_recipe(None, [f"evaluation.capability=[{path}, arithmetic]"]))
    assert [task.name for task in found.report.capability] == ["mine", "arithmetic"]


def test_a_bad_pair_stops_with_its_row_and_the_way_out_or_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = [{"prompt": f"q{n}", "chosen": "No.", "rejected": "Yes."} for n in range(3)]
    rows = [good[0], {"prompt": "q", "chosen": "", "rejected": "Yes."}, *good[1:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"pairs\.jsonl:2: chosen: empty .*data\.drop_bad=true"):
        gather(load_recipe(None, [f"data.pairs={path}"]))
    found = gather(load_recipe(None, [f"data.pairs={path}", "data.drop_bad=true"]))
    assert [pair.messages[-1]["content"] for pair in found.pairs] == ["q0", "q1", "q2"]
