"""The forecast: more of anything takes longer, and nothing on the way needs a big model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import tiny_recipe, write_inputs

from safepref.models import load_model
from safepref.pipeline import forecast as module
from safepref.pipeline.prompts import gather
from safepref.pipeline.results import in_a_line
from safepref.recipe import Recipe


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and files of the two-layer run."""
    folder = tmp_path_factory.mktemp("source")
    write_inputs(folder)
    return folder


def seconds(recipe: Recipe, methods: int = 2, workers: int = 1, *, evaluate: bool = True) -> float:
    loaded = load_model(recipe.model.id, dtype="float32", device="cpu")
    return module.forecast(recipe, loaded, gather(recipe), methods, workers, evaluate=evaluate)


def test_more_work_takes_longer(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_rates", lambda loaded, recipe: (1000.0, 100.0))
    plain = tiny_recipe(source)
    base = seconds(plain)
    assert base > 0
    assert seconds(plain, methods=4) > base
    assert seconds(plain, workers=2) < base
    assert 0 < seconds(plain, evaluate=False) < base
    longer = plain.training.model_copy(update={"epochs": 3.0})
    assert seconds(plain.model_copy(update={"training": longer})) > base
    unchosen = plain.evaluation.model_copy(update={"choose": False})
    assert seconds(plain.model_copy(update={"evaluation": unchosen})) < base
    tasks = (*(plain.evaluation.capability or ()), "arithmetic")
    solved = plain.evaluation.model_copy(update={"capability": tasks})
    assert seconds(plain.model_copy(update={"evaluation": solved})) > base

    def asked(**changes: Any) -> float:
        return seconds(plain.model_copy(update={"evaluation": plain.evaluation.model_copy(update=changes)}))

    few, many = (asked(chat=("arithmetic",), chat_rows=rows, limit=None) for rows in (5, 50))
    assert few < many, "of arithmetic no more problems are asked than the rows allow"
    assert few > asked(chat=(), limit=None), "the base is asked which families it gets right"


def test_rates_come_from_the_model_at_hand(source: Path) -> None:
    assert 0 < seconds(tiny_recipe(source)) < 3600


def test_the_line_of_an_evaluation_says_what_was_not_measured() -> None:
    whole: dict[str, Any] = {
        "safety": {"global": 0.885},
        "over_refusal": {"rate": 0.1719},
        "capability": {"mean": 0.4042},
    }
    assert in_a_line(whole) == "safety 88.5 %, over-refusal 17.2 %, capability 0.404"
    whole["over_refusal"] |= {"unread": {"not English (French)": 2, "not English (German)": 1}}
    whole["toxicity"] = {"unread": {"plain": {}, "adversarial": {"not English (French)": 4}}}
    assert in_a_line(whole).endswith(
        "17.2 % (3 unscored), capability 0.404, toxicity unscored of 4 continuations in other languages"
    )
    nothing = {"safety": None, "over_refusal": None, "capability": None}
    assert in_a_line(nothing).count("not measured") == 3
