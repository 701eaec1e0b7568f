"""Ranges of a search, what is tried next, and the files that trials become."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from safepref.errors import InputError
from safepref.methods import METHODS
from safepref.pipeline.space import Knob, search_space
from safepref.pipeline.suggest import suggest
from safepref.pipeline.trials import Trial, best_of, fragment, read_trials, table, trial_file
from safepref.recipe import parse_recipe
from safepref.training import TrainingSettings

WIDTH = 576


def recipe(**sections: object):  # type: ignore[no-untyped-def]
    return parse_recipe(dict(sections), "test")


@pytest.mark.parametrize("name", METHODS)
def test_the_centers_are_what_is_trained_with_and_the_ends_are_allowed(name: str) -> None:
    method, plain = METHODS[name], recipe()
    knobs = {knob.name: knob for knob in search_space(plain, method, WIDTH)}
    assert {"learning_rate", "beta", "epochs", "anchor"} <= set(knobs)
    assert ("chosen_nll" in knobs) == (not method.has_nll)
    wanted = TrainingSettings.from_recipe(plain.training, method)
    assert knobs["learning_rate"].center == wanted.rate(method, WIDTH)
    assert knobs["beta"].center == method.beta
    for end in ("low", "high", "center"):
        values = {key: getattr(knob, end) for key, knob in knobs.items()}
        assert all(knob.low <= values[key] <= knob.high for key, knob in knobs.items())
        tried = recipe(training={"params": {name: values}})
        TrainingSettings.from_recipe(tried.training, method)


def test_the_recipe_moves_the_centers_and_switches_searches_off() -> None:
    nca = METHODS["nca"]
    changed = recipe(
        training={"anchor": 0, "params": {"nca": {"beta": 0.02}}}, data={"harmless": 0, "harmful": 10}
    )
    knobs = {knob.name: knob for knob in search_space(changed, nca, 2 * WIDTH)}
    assert knobs["beta"].center == 0.02 and knobs["beta"].high == pytest.approx(0.03)
    assert knobs["learning_rate"].center == nca.learning_rate / 2
    assert not {"anchor", "harmless_nll", "label_smoothing"} & set(knobs)
    assert [k.name for k in search_space(changed, nca, WIDTH, ["beta", "anchor"])] == ["beta"]
    ordinary = recipe(data={"harmless": 0, "ordinary": 5})
    assert "harmless_nll" in {knob.name for knob in search_space(ordinary, nca, WIDTH)}
    with pytest.raises(InputError, match="--search: 'betta' is nothing that is searched; did you mean beta"):
        search_space(changed, nca, WIDTH, ["betta"])
    with pytest.raises(InputError, match="--search anchor: nca has none of these"):
        search_space(changed, nca, WIDTH, ["anchor"])


KNOBS = (Knob("learning_rate", 1e-3, 2.5e-4, 2e-3, True), Knob("epochs", 2.0, 1.0, 3.0, False))


def searched(count: int, seed: int = 0) -> list[tuple[dict[str, float], float]]:
    """A search for the highest point of a hill at rate 5e-4 and 1.5 epochs."""
    found: list[tuple[dict[str, float], float]] = []
    for number in range(count):
        values = suggest(KNOBS, found, seed + number)
        height = -(math.log(values["learning_rate"] / 5e-4) ** 2) - (values["epochs"] - 1.5) ** 2
        found.append((values, height))
    return found


def test_the_first_trial_is_the_present_setting_and_later_ones_climb() -> None:
    found = searched(16)
    assert found[0][0] == {"learning_rate": 1e-3, "epochs": 2.0}
    assert all(knob.low <= values[knob.name] <= knob.high for values, _ in found for knob in KNOBS)
    assert max(height for _, height in found) > found[0][1] / 5
    random, later = found[1:4], found[10:]
    assert max(h for _, h in later) > max(h for _, h in random)
    assert len({json.dumps(values) for values, _ in found}) > 10


def test_what_is_suggested_depends_on_the_trials_alone() -> None:
    found = searched(9)
    again = [(json.loads(json.dumps(values)), height) for values, height in found]
    assert suggest(KNOBS, again[:6], 6) == found[6][0]
    assert suggest(KNOBS, again[:6], 7) != found[6][0]


def scores(safety: float) -> dict[str, object]:
    return {
        "safety": {
            "global": safety,
            "plain": safety,
            "adversarial": None,
            "interval": [safety - 0.1, safety + 0.1],
        },
        "over_refusal": {"rate": 0.125, "interval": [0.05, 0.25]},
        "capability": {"mean": 0.5},
    }


def trial(number: int, objective: float | None, beta: float) -> Trial:
    if objective is None:
        return Trial("dpo", number, {"beta": beta}, {"beta": beta}, None, None, None, "the loss is nan")
    return Trial("dpo", number, {"beta": beta}, {"beta": beta}, objective, scores(0.8), {})


def test_the_best_trial_is_a_recipe_and_a_row_of_the_table(tmp_path: Path) -> None:
    found = [trial(0, 0.25, 0.1), trial(1, None, 0.4), trial(2, 0.375, 0.05), trial(3, 0.375, 0.06)]
    best = best_of(found)
    assert best is not None and best.number == 2
    assert best_of(found[1:2]) is None
    (tmp_path / "tuned.yaml").write_text(text := fragment([found], 576))
    assert yaml.safe_load(text) == {"training": {"params": {"dpo": {"beta": 0.05}}}}
    assert "# dpo: trial 2 of 4, objective 0.3750 (trial 0, the settings before: 0.2500)" in text
    rows = [line for line in table([found], 0.9, 0.5).splitlines() if line.startswith("| dpo")]
    assert [row.count("|") for row in rows] == [10 + 1] * 4
    assert "the settings before" in rows[0] and "the loss is nan" in rows[1] and "**best**" in rows[2]
    assert "80.0% (70.0% to 90.0%)" in rows[2] and "12.5% (5.0% to 25.0%)" in rows[2]


def test_trials_are_read_back_and_other_files_are_refused(tmp_path: Path) -> None:
    for one in (trial(1, None, 0.4), trial(0, 0.25, 0.1)):
        path = trial_file(tmp_path, "dpo", one.number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(one.to_json()))
    assert read_trials(tmp_path, "dpo") == [trial(0, 0.25, 0.1), trial(1, None, 0.4)]
    trial_file(tmp_path, "dpo", 0).write_text('{"method": "dpo"}')
    with pytest.raises(InputError, match=r"dpo-000\.json: not a trial of this search; remove it"):
        read_trials(tmp_path, "dpo")
