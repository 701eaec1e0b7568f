"""Settings of a training run, and how a recipe becomes them."""

from __future__ import annotations

from typing import Any

import pytest

from safepref.errors import InputError
from safepref.methods import METHODS
from safepref.recipe import TrainingSection
from safepref.training import TrainingSettings


def test_a_recipe_becomes_settings_with_the_methods_own_on_top() -> None:
    section = TrainingSection(
        epochs=3,
        learning_rate=1e-4,
        chosen_nll=0.7,
        harmless_nll=0.2,
        params={
            "rdpo": {"beta": 0.3, "epochs": 1, "label_smoothing": 0.2},
            "ipo": {"chosen_nll": 1, "harmless_nll": 2, "anchor": 3, "anchor_kind": "kl"},
        },
    )
    plain = TrainingSettings.from_recipe(section, METHODS["dpo"], seed=5)
    assert (plain.epochs, plain.beta, plain.seed, dict(plain.params)) == (3, None, 5, {})
    assert plain.chosen_nll == {"harmful": 0.7, "preference": 0.7, "harmless": 0.2, "ordinary": 0.2}
    assert (plain.nll_over, plain.anchor_ratio, plain.max_grad_norm) == ("completion", None, 1.0)
    wide = TrainingSection(nll_over="sequence", anchor_ratio=0.5, max_grad_norm=0.3)
    whole = TrainingSettings.from_recipe(wide, METHODS["orpo"])
    assert (whole.nll_over, whole.anchor_ratio, whole.max_grad_norm) == ("sequence", 0.5, 0.3)
    held = TrainingSettings.from_recipe(section, METHODS["ipo"])
    assert (held.chosen_nll["harmless"], held.chosen_nll["ordinary"], held.anchor) == (2, 2, 3)
    assert (plain.anchor, plain.anchor_kind, held.anchor_kind) == (1, "nll", "kl")
    with pytest.raises(InputError, match=r"training\.params\.nca\.anchor_kind is 'l2'; give nll or kl"):
        TrainingSettings.from_recipe(TrainingSection(params={"nca": {"anchor_kind": "l2"}}), METHODS["nca"])
    own = TrainingSettings.from_recipe(section, METHODS["rdpo"])
    assert (own.epochs, own.beta, own.learning_rate) == (1, 0.3, 1e-4)
    assert own.params == {"label_smoothing": 0.2}


def test_the_nll_is_the_methods_own_unless_the_recipe_says_otherwise() -> None:
    plain = TrainingSection()
    assert {name for name, row in METHODS.items() if row.nll != 2} == {"nca", "ipo", "aot"}
    for name in ("nca", "dpo"):
        taken = TrainingSettings.from_recipe(plain, METHODS[name]).chosen_nll
        assert {taken["harmful"], taken["preference"]} == {METHODS[name].nll}
        assert {taken["harmless"], taken["ordinary"]} == {1.0}
    asked = TrainingSection(chosen_nll=0.7, params={"ipo": {"chosen_nll": 0.1}})
    assert TrainingSettings.from_recipe(asked, METHODS["nca"]).chosen_nll["harmful"] == 0.7
    assert TrainingSettings.from_recipe(asked, METHODS["ipo"]).chosen_nll["harmful"] == 0.1


def test_rates_come_from_the_method_unless_set() -> None:
    nca = METHODS["nca"]
    assert TrainingSettings().rate(nca) == nca.learning_rate
    assert TrainingSettings(full=True).rate(nca) == nca.full_learning_rate
    assert TrainingSettings(full=True, learning_rate=0.5).rate(nca) == 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ncaa": {}}, "training.params.ncaa: no such method; did you mean nca"),
        ({"nca": {"label_smoothing": 0.1}}, "unknown parameter 'label_smoothing'"),
        ({"nca": {"beta": "much"}}, "training.params.nca.beta is 'much'; give a number"),
        ({"nca": {"beta": -1}}, "beta is -1"),
        ({"nca": {"epochs": 0}}, "training.epochs is 0"),
    ],
)
def test_bad_recipes_are_answered_in_one_line(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainingSettings.from_recipe(TrainingSection(params=params), METHODS["nca"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "training.batch_size is 0; give a whole number from 1 up"),
        ({"learning_rate": 0.0}, "training.learning_rate is 0.0; give a number above 0"),
        ({"epochs": float("inf")}, "training.epochs is inf"),
        ({"anchor": -1.0}, "training.anchor is -1.0; give a number from 0 up"),
        ({"chosen_nll": {"harmful": float("nan")}}, "training.chosen_nll.harmful is nan"),
        ({"warmup": 1.5}, "training.warmup is 1.5; give a share from 0 to 1"),
        ({"full": True, "anchor": 1.0, "anchor_kind": "kl"}, "set anchor_kind to nll"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings(**values)


def test_wider_models_get_lower_rates_unless_one_is_given() -> None:
    nca = METHODS["nca"]
    assert TrainingSettings().rate(nca, 576) == TrainingSettings().rate(nca, 64) == nca.learning_rate
    assert TrainingSettings().rate(nca, 4096) == pytest.approx(nca.learning_rate * 576 / 4096)
    assert TrainingSettings(learning_rate=3e-4).rate(nca, 4096) == 3e-4
