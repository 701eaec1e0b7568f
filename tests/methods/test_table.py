"""The table of methods: names, defaults, ranges and the errors a user sees."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError

import pytest
import torch

from safepref.errors import InputError
from safepref.methods import METHODS, PAPER_METHODS, Logps, Method, Switch, resolve_methods

NAMES = ["dpo", "rdpo", "ipo", "slic", "kto", "exo", "nca", "sppo", "aot", "orpo", "bco", "aot_unpaired"]


def logps(size: int, weights: torch.Tensor | None = None) -> Logps:
    values = torch.full((size,), -2.0)
    return Logps(
        values,
        values,
        values,
        values,
        policy_kl=values,
        reference_kl=values,
        chosen_nll=-values,
        weights=weights,
    )


def test_names_and_the_papers_ten() -> None:
    assert list(METHODS) == NAMES
    assert list(PAPER_METHODS) == NAMES[:10]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_row_agrees_with_its_function(method: Method) -> None:
    signature = inspect.signature(method.loss).parameters
    assert set(signature) == {"logps", "beta", *method.params}
    for name, row in method.params.items():
        assert signature[name].default == row.default
        assert row.default in row
    assert method.beta > 0 and method.learning_rate > method.full_learning_rate > 0
    assert method.arxiv.count(".") == 1 and method.description and method.title


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        METHODS["dpo"].beta = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        METHODS["dpo"] = METHODS["nca"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("nca,dpo", ["nca", "dpo"]),
        (" NCA , dpo,nca,", ["nca", "dpo"]),
        ("paper", NAMES[:10]),
        ("all", NAMES),
        ("bco,paper", ["bco", *NAMES[:10]]),
    ],
)
def test_resolve_methods(spec: str, names: list[str]) -> None:
    assert [method.name for method in resolve_methods(spec)] == names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nac", "unknown method 'nac'; did you mean 'nca'"),
        ("dpo,aot_unpared", "did you mean 'aot_unpaired'"),
        ("zzzzzz", "the methods are dpo, rdpo"),
        ("", "names no method"),
        (" , ", "names no method"),
    ],
)
def test_unknown_methods_are_answered_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve_methods(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["kto", "aot", "aot_unpaired"])
def test_a_batch_of_one_is_refused_where_pairs_are_compared(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: a micro-batch of 1 pair.*training.batch_size"):
        METHODS[name](logps(1))
    assert METHODS[name](logps(2)).losses.shape == (2,)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"kto", "aot", "aot_unpaired"}))
def test_a_batch_of_one_is_fine_elsewhere(name: str) -> None:
    assert METHODS[name](logps(1)).losses.shape == (1,)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_pairs_of_sorted_batches_have_no_weight(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*weight"):
        METHODS[name](logps(2, weights=torch.ones(2)))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dpo", {"beta": 0.0}, r"beta is 0.0; give a number in \(0, inf\)"),
        ("dpo", {"beta": -1.0}, "beta is -1.0"),
        ("dpo", {"beta": float("inf")}, "beta is inf"),
        ("dpo", {"beta": float("nan")}, "beta is nan"),
        ("nca", {"beta": True}, "beta is True"),
        ("rdpo", {"label_smoothing": 0.5}, r"label_smoothing is 0.5; give a number in \[0, 0.5\)"),
        ("rdpo", {"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ("exo", {"label_smoothing": 0.0}, r"label_smoothing is 0.0; give a number in \(0, 0.5\)"),
        ("kto", {"desirable_weight": -1}, "desirable_weight is -1"),
        ("slic", {"reference_free": 1}, "reference_free is 1; give true or false"),
        ("rdpo", {"label_smoting": 0.1}, "unknown parameter 'label_smoting'; did you mean 'label_smoothing'"),
        ("nca", {"margin": 1.0}, "unknown parameter 'margin'; it has no parameters"),
    ],
)
def test_values_out_of_range_are_named(name: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        METHODS[name](logps(2), **params)


def test_resolve_fills_in_the_defaults() -> None:
    beta, params = METHODS["slic"].resolve(None, {"margin": 3})
    assert (beta, params) == (0.1, {"reference_free": False, "margin": 3, "nll_weight": 0.1})
    assert isinstance(METHODS["slic"].params["reference_free"], Switch)


def test_slic_without_reference_holds_the_nll_itself_and_with_one_does_not() -> None:
    slic = METHODS["slic"]
    assert [slic.holds_nll(slic.resolve(None, {"reference_free": on})[1]) for on in (False, True)] == [
        False,
        True,
    ]
    assert [row.name for row in METHODS.values() if row.holds_nll(row.resolve()[1])] == ["orpo"]
