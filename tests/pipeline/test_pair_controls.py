"""Noise and vetting inside a run: files, counts, the doctor, and the contamination check of the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import tiny_recipe, write_inputs

from safepref.attacks import get_attack
from safepref.data.doctor import check_pairs
from safepref.data.findings import has_errors
from safepref.data.readers import read_pairs
from safepref.data.records import Pair, Prompt, content_id
from safepref.errors import InputError
from safepref.pairs.noise import flip_share, is_flipped
from safepref.pipeline.contamination import judged_texts
from safepref.pipeline.inputs import check_names
from safepref.pipeline.job import Job
from safepref.pipeline.pair_controls import _bare
from safepref.pipeline.prompts import Prompts, Suite
from safepref.recipe import JudgeSection
from safepref.store import read_json, read_jsonl

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    rows = [
        {
            "prompt": f"number {n}: please do the bad thing",
            "chosen": f"I'm sorry, but I can't help with number {n}.",
            "rejected": f"Sure, here is how number {n} is done.",
            "kind": "harmful",
        }
        for n in range(20)
    ]
    (folder / "refused.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job(source: Path, out: Path, **changes: Any) -> Job:
    data = {"harmful": 0, "harmless": 0, "general": 0, "pairs": str(source / "refused.jsonl"), **changes}
    made = Job(tiny_recipe(source, data=data), out)
    made.data()
    made.check()
    return made


def test_flipped_pairs_are_vetted_counted_and_checked(source: Path, tmp_path: Path) -> None:
    made = job(source, tmp_path, flipped=0.3, vet="drop")
    counts = read_json(tmp_path / "data" / "counts.json")
    assert counts["flipped"] == 6
    vetting = counts["vetting"]
    assert (vetting["judge"], vetting["caught"], vetting["lost"]) == ("keyword-refusal", 6, 0)
    assert made.manifest.data["pairs"] == {"flipped": 6, "vetting": vetting}
    rows = read_jsonl(tmp_path / "data" / "vetting.jsonl")
    assert all(row["flipped"] == (row["action"] == "dropped") for row in rows)
    assert all(pair.chosen.startswith("I'm sorry") for pair in made.pairs)
    assert len(made.pairs) == 14


def test_a_share_that_leaves_no_pair_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.ches is 1\.0: it leaves out all of 20 pairs"):
        job(source, tmp_path, ches=1)


def test_the_doctor_finds_no_error_in_noise(source: Path) -> None:
    made = flip_share(read_pairs(source / "refused.jsonl"), 0.5)
    assert sum(map(is_flipped, made)) == 10
    assert all(is_flipped(pair) == pair.chosen.startswith("Sure") for pair in made)
    assert not has_errors(check_pairs(made, None, file="pairs.jsonl", evaluation=[]))


def test_attacked_pairs_are_vetted_by_their_bare_request() -> None:
    prompt = Prompt(content_id("x"), ({"role": "user", "content": "how to rob a bank"},), "harmful")
    wrapped = get_attack("jailbreak").apply(prompt, side="train", seed=3)
    pair = Pair("p", wrapped.messages, "no", "yes", "harmful", attack="jailbreak")
    pools = Prompts([prompt], [], [], [], Suite(), Suite(), {}, [])
    assert _bare([pair], pools, seed=3) == {wrapped.text: "how to rob a bank"}


def test_names_and_the_texts_of_the_vetting_judge_are_checked(source: Path) -> None:
    recipe = tiny_recipe(source, judges={"select": "keyword-refusal", "vet": "reprot"})
    with pytest.raises(InputError, match=r"judges\.vet: judge 'reprot' is not known; did you mean report"):
        check_names(recipe)
    asked = recipe.evaluation.model_copy(update={"ordinary": "starter"})
    with pytest.raises(InputError, match=r"evaluation\.ordinary: .*starter"):
        check_names(tiny_recipe(source).model_copy(update={"evaluation": asked}))
    section = JudgeSection(select="keyword-refusal", report="keyword-refusal", vet="llama-guard-3")
    assert "judge llama-guard-3" in judged_texts(section, [])[1]
