"""A search on a two-layer model: its files, a kill and an undisturbed one alike, trials that diverge."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import command, killed, tiny_recipe, write_inputs

from safepref.errors import InputError
from safepref.pipeline.manifest import Manifest
from safepref.pipeline.tune import tune
from safepref.recipe import load_recipe
from safepref.store import read_json

pytestmark = pytest.mark.assets

TRAINING = {"epochs": 1, "batch_size": 4, "save_steps": 1, "lora_rank": 2, "max_length": 512}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def search(
    source: Path, out: Path, trials: int, methods: str = "dpo", workers: int = 1, **training: object
) -> Path:
    recipe = tiny_recipe(source, methods=methods, training={**TRAINING, **training})
    out.mkdir(parents=True, exist_ok=True)
    Manifest(out, recipe).put("plan", dtype="float32", threads=2, shares=2)
    return tune(recipe, out, trials=trials, search=["beta", "learning_rate"], workers=workers)


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed search of three trials."""
    out = tmp_path_factory.mktemp("searches") / "plain"
    search(source, out, 3)
    return out


def contents(out: Path) -> dict[str, str]:
    files = [*out.glob("trials/*.json"), out / "trials.md", out / "tuned.yaml"]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_a_search_leaves_its_trials_a_table_and_a_recipe(source: Path, finished: Path) -> None:
    rows = [read_json(path) for path in sorted(finished.glob("trials/*.json"))]
    assert [row["number"] for row in rows] == [0, 1, 2]
    before = rows[0]
    assert before["values"] == {"learning_rate": 1e-3, "beta": 0.1}
    for row in rows:
        assert set(row["scores"]) >= {"safety", "over_refusal", "capability"}
        assert row["training"]["learning_rate"] == row["values"]["learning_rate"]
        assert row["training"]["beta"] == row["values"]["beta"]
    best = max(rows, key=lambda row: (row["objective"], -row["number"]))
    tuned = load_recipe(finished / "tuned.yaml")
    assert tuned.training.params == {"dpo": best["settings"]}
    assert (finished / "trials.md").read_text(encoding="utf-8").count("\n| dpo |") == 3
    assert (finished / "best" / "dpo" / "adapter_model.safetensors").is_file()
    # What trials trained and answered is gone; the report split was never asked.
    assert not list((finished / "work").rglob("*.safetensors"))
    assert not list((finished / "samples").glob("report*")) if (finished / "samples").exists() else True
    stages = {row["name"]: row for row in read_json(finished / "manifest.json")["stages"]}
    assert stages["trial:dpo:002"]["status"] == "done" and stages["trial:dpo:002"]["seconds"] > 0


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_had_not_been(source: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    assert killed(search, source, out, 3, stage="trial:dpo:001") == -9
    kept = {path: path.stat().st_mtime_ns for path in out.glob("trials/*.json")}
    assert len(kept) == 2
    search(source, out, 3)
    assert contents(out) == contents(finished)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    adapter = Path("best") / "dpo" / "adapter_model.safetensors"
    assert (out / adapter).read_bytes() == (finished / adapter).read_bytes()


@pytest.mark.slow
def test_a_search_killed_within_a_trial_goes_on_in_it(source: Path, finished: Path, tmp_path: Path) -> None:
    assert killed(search, source, tmp_path, 1, stage="evaluate:choose:dpo@1", after=10) == -9
    assert not list(tmp_path.glob("trials/*.json"))
    search(source, tmp_path, 1)
    name = "dpo-000.json"
    assert contents(tmp_path)[name] == contents(finished)[name]


@pytest.mark.slow
def test_methods_searched_side_by_side_have_the_same_trials(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "beside"
    search(source, out, 3, methods="dpo,nca", workers=2)
    found, alone = contents(out), contents(finished)
    assert {name: found[name] for name in alone if name.startswith("dpo")} == {
        name: text for name, text in alone.items() if name.startswith("dpo")
    }
    assert len(list(out.glob("trials/nca-*.json"))) == 3
    assert found["trials.md"].count("\n| nca |") == 3


def test_another_search_in_its_folder_is_refused(source: Path, finished: Path) -> None:
    recipe = tiny_recipe(source, methods="dpo", training=TRAINING)
    with pytest.raises(
        InputError, match=r"dpo is searched there over learning_rate 0\.00025 to 0\.002, beta"
    ):
        tune(recipe, finished, trials=3, search=["beta"])


@pytest.mark.slow
def test_a_diverging_trial_is_kept_and_the_search_goes_on(source: Path, tmp_path: Path) -> None:
    search(source, tmp_path, 2, learning_rate=1e30)
    rows = [read_json(path) for path in sorted(tmp_path.glob("trials/*.json"))]
    assert [row["objective"] for row in rows] == [None, None]
    assert all("the loss is" in row["failed"] for row in rows)
    assert load_recipe(tmp_path / "tuned.yaml").training.params == {}
    assert not (tmp_path / "best").exists()


def test_the_command_says_what_is_wrong_before_any_work(tmp_path: Path) -> None:
    code, _, err = command("tune", "--methods", "dop", "--out", tmp_path / "a")
    assert code == 2 and "unknown method 'dop'; did you mean 'dpo'?" in err
    code, _, err = command("tune", "--set", "training.betta=1", "--out", tmp_path / "a")
    assert code == 2 and "did you mean training.beta" in err
