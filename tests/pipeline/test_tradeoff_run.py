"""A run with merges and strengths by groups of layers: killed in a merge, continued, chosen from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny_run import command, killed, start, tiny_recipe, write_inputs

from safepref.errors import InputError
from safepref.pipeline.job import Job
from safepref.pipeline.manifest import Manifest
from safepref.pipeline.tasks import swept_strengths, tasks_of
from safepref.recipe import Recipe
from safepref.store import read_json, read_jsonl

pytestmark = pytest.mark.assets

MERGE = "dpo+kto.dare_linear"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def swept(folder: Path, **changes: Any) -> Recipe:
    """Two methods and a merge, one strength and one point by groups of layers, held to the base's ability."""
    asked = tiny_recipe(folder).evaluation.model_dump(mode="json") | {"strengths": [1.0], "limit": 2}
    values: dict[str, Any] = {
        "evaluation": asked,
        "report": {"capability_drop": 0.5, "over_refusal_ceiling": 1.0},
        "tradeoff": {
            "groups": 2,
            "group_points": [[0.5, 1.0]],
            "merges": [{"methods": ["dpo", "kto"], "how": "dare_linear"}],
        },
    }
    return tiny_recipe(folder, **{**values, **changes})


def test_each_group_alone_is_tried_where_no_points_are_named(source: Path) -> None:
    recipe = swept(source, tradeoff={"groups": 3, "group_levels": [0.0, 0.5, 1.0]})
    found = swept_strengths(recipe)
    assert found[0] == 1.0 and len(found) == 1 + 6  # level 1 is strength 1 again
    assert found[1:3] == ((0.0, 1.0, 1.0), (0.5, 1.0, 1.0))
    off = recipe.evaluation.model_copy(update={"choose": False})
    assert swept_strengths(recipe.model_copy(update={"evaluation": off})) == ()


def test_a_merge_waits_for_its_methods_and_is_scored_after_it(source: Path) -> None:
    from safepref.methods import resolve_methods

    tasks = {task.name: task for task in tasks_of(resolve_methods("dpo,kto"), swept(source))}
    assert tasks[f"merge:{MERGE}"].needs == ("train:dpo", "train:kto")
    assert tasks[f"evaluate:choose:{MERGE}@0.5/1"].needs == (f"merge:{MERGE}",)
    assert tasks["evaluate:choose:base"].needs == ()
    plain = [task.name for task in tasks_of(resolve_methods("dpo,kto"), tiny_recipe(source))]
    assert "evaluate:choose:base" not in plain and not any("merge" in name for name in plain)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"methods": "dpo"}, "takes kto, which is not trained; the methods are dpo"),
        ({"training": {"full": True}}, "needs adapters, but training.full is true"),
        (
            {"tradeoff": {"merges": [{"methods": ["dpo", "kto"], "name": "nca"}]}},
            "the name nca is taken; give another",
        ),
        (
            {"tradeoff": {"merges": [{"methods": ["dpo", "kto"], "name": "grpo"}]}},
            "the name grpo is taken; give another",
        ),
    ],
)
def test_a_merge_that_cannot_be_is_refused_at_once(
    source: Path, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=f"tradeoff.merges: .*{why}"):
        Job(swept(source, **changes), tmp_path)


@pytest.mark.slow
def test_a_run_killed_in_a_merge_ends_as_an_undisturbed_one(source: Path, tmp_path: Path) -> None:
    recipe, whole, broken = swept(source), tmp_path / "whole", tmp_path / "broken"
    start(recipe, whole, workers=2)
    assert killed(start, recipe, broken, stage=f"merge:{MERGE}") == -9
    start(recipe, broken)
    results = read_json(whole / "results.json")
    assert results == read_json(broken / "results.json")
    weights = [
        (run / "adapters" / MERGE / "adapter_model.safetensors").read_bytes() for run in (whole, broken)
    ]
    assert weights[0] == weights[1]
    assert set(results["methods"]) == {"dpo", "kto", MERGE}
    merged = results["methods"][MERGE]
    assert merged["training"]["merged"]["seed"] == 0 and set(merged["choose"]) == {"1", "0.5/1"}
    assert results["tradeoff"]["base"]["safety"]["n"] > 0
    assert set(results["tradeoff"]["hypervolume"]) == set(results["methods"])
    assert all(set(point) == {"method", "strength"} for point in results["tradeoff"]["front"])
    rows = read_jsonl(whole / "samples" / f"choose.{MERGE}@0.5_1.jsonl")
    assert {(row["point"], row["strength"]) for row in rows} == {(f"{MERGE}@0.5/1", "0.5/1")}
    assert results["recommended"]["method"] in results["methods"]
    code, printed, said = command("compare", f"{whole}:base", f"{whole}:{MERGE}@.5/1")
    assert code in (0, 1, 4) and f"{MERGE}@0.5/1" in printed + said
    assert 'data-tried="dpo@0.5/1"' in (whole / "report.html").read_text()


def test_other_points_and_limits_are_asked_of_what_stands(source: Path, tmp_path: Path) -> None:
    first = Manifest(tmp_path, tiny_recipe(source))
    for name in ("train:dpo", "report"):
        with first.stage(name, name):
            pass
    later = Manifest(tmp_path, swept(source, evaluation=first.data["recipe"]["evaluation"]))
    assert later.done("train:dpo") and not later.done("report")
    assert later.data["recipe"]["tradeoff"]["groups"] == 2
    merges = {"merges": [{"methods": ["dpo", "kto"], "how": "dare_linear", "seed": 1}]}
    evaluation = first.data["recipe"]["evaluation"]
    with pytest.raises(InputError, match=f"tradeoff.merges: {re.escape(MERGE)} was .* name it otherwise"):
        Manifest(tmp_path, swept(source, evaluation=evaluation, tradeoff=merges))
    with pytest.raises(InputError, match="seed: 0 there, 1 now"):
        Manifest(tmp_path, swept(source, evaluation=evaluation, seed=1))
