"""The decision rule: planted differences, its error rates over many repeats, and small counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy import stats

from safepref.comparison.decide import Finding, decide, verdict
from safepref.comparison.gate import CapabilityGate, Criterion, Gate
from safepref.evaluation.paired import Gain
from safepref.statistics import paired_evidence

REPEATS = 500
GATE = Gate()
ATTACKS = ("suffix", "jailbreak")


def draw(
    rng: np.random.Generator, prompts: int, up: float, down: float, variants: int = 1, together: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (prompts, variants) of A and B: B alone is right in `up` of them, A alone in `down`."""
    shape = (prompts, variants)
    u = np.where(rng.random(shape) < together, rng.random((prompts, 1)), rng.random(shape))
    first = np.where(u < up, 0.0, np.where(u > 1 - down, 1.0, rng.random(shape) < 0.6))
    return first, np.where(u < up, 1.0, np.where(u > 1 - down, 0.0, first))


def gain(measure: str, first: np.ndarray, second: np.ndarray, seed: int) -> Gain:
    """As the samples' reader makes it; several variants are plain and under each attack."""
    prompts, variants = first.shape
    groups = ["plain", *ATTACKS] * prompts if variants > 1 else None
    evidence = paired_evidence(
        first.ravel(),
        second.ravel(),
        clusters=np.repeat(np.arange(prompts), variants),
        groups=groups,
        group_weights={"plain": 0.5, "suffix": 0.25, "jailbreak": 0.25} if groups else None,
        level=GATE.level,
        draws=120,
        permutations=199,
        seed=seed,
    )
    return Gain(measure, evidence, 0, 0, None)


Shares = tuple[float, float]


def findings(
    rng: np.random.Generator, seed: int, safe: Shares, refused: Shares, able: Shares, prompts: int = 100
) -> list[Finding]:
    """One experiment of the default gate: shares of prompts where B alone, and A alone, is right.

    Not answering is what over-refusal counts, so there B alone being right is a refusal of A alone.
    """
    a, b = draw(rng, prompts, *safe, variants=3)
    gains = {"safety": gain("safety", a, b, seed)}
    a, b = draw(rng, 2 * prompts, refused[1], refused[0])
    gains["over_refusal"] = gain("over_refusal", a, b, seed)
    a, b = draw(rng, 2 * prompts, *able)
    gains["capability.sums"] = gain("capability.sums", a, b, seed)
    return decide(GATE, GATE.criteria(["sums"]), gains)


@cache
def rates(safe: Shares, refused: Shares, able: Shares, repeats: int = REPEATS, prompts: int = 100):
    """Shares of repeats in which any criterion is called held, any violated, and the gate's verdicts."""
    rng = np.random.default_rng(7)
    done = [findings(rng, seed, safe, refused, able, prompts) for seed in range(repeats)]

    def share(said: Callable[[list[Finding]], bool]) -> float:
        return float(np.mean([said(f) for f in done]))

    return {
        "holds": share(lambda f: any(x.decision == "holds" for x in f)),
        "violated": share(lambda f: any(x.decision == "violated" for x in f)),
        **{kind: share(lambda f, kind=kind: verdict(f) == kind) for kind in ("pass", "fail", "undecided")},
    }


def at_most(rate: float, repeats: int = REPEATS) -> float:
    """What a share of so many repeats stays under 999 times in 1,000 if its true rate is `rate`."""
    return float(stats.binom.ppf(0.999, repeats, rate)) / repeats


EQUAL, WORSE = (0.06, 0.06), (0.04, 0.09)
"""No difference, and a loss of five points: the border of superiority, and of non-inferiority."""


def test_with_every_criterion_on_its_border_nothing_is_claimed_too_often() -> None:
    found = rates(EQUAL, WORSE, WORSE)
    assert found["holds"] <= at_most(GATE.alpha)
    assert found["violated"] <= at_most(GATE.alpha)
    assert found["pass"] <= at_most(GATE.alpha)


def test_one_criterion_on_its_border_among_true_ones_is_not_carried_along() -> None:
    found = rates((0.35, 0.02), WORSE, (0.05, 0.01), repeats=200)
    assert found["pass"] <= at_most(GATE.alpha, 200)


def test_a_clear_improvement_passes_and_a_clear_loss_fails() -> None:
    better = rates((0.35, 0.02), (0.02, 0.02), (0.03, 0.02), repeats=60, prompts=250)
    assert better["pass"] >= 0.8 and better["fail"] == 0.0
    worse = rates((0.35, 0.02), (0.0, 0.2), (0.03, 0.02), repeats=60, prompts=250)
    assert worse["fail"] >= 0.95 and worse["pass"] == 0.0
    little = rates((0.35, 0.02), (0.02, 0.02), (0.03, 0.02), repeats=60, prompts=20)
    assert little["undecided"] >= 0.9


def single(first: list[float], second: list[float], gate: Gate = GATE, name: str = "over_refusal") -> Finding:
    only = gate.model_copy(update={"safety": None, "capability": CapabilityGate(each=None)})
    value = gain(name, np.array([first]).T, np.array([second]).T, 0)
    return next(f for f in decide(only, only.criteria([]), {name: value}) if f.criterion is not None)


def test_no_difference_on_few_prompts_does_not_pass_a_non_inferiority_gate() -> None:
    few = single([0.0] * 60, [0.0] * 60)
    assert few.decision == "undecided" and few.gain is not None
    assert few.gain.interval.low < -0.05 and few.gain.interval.high > 0.05
    assert few.needed is not None and few.needed > 60 and few.towards == "holds"
    assert single([0.0] * few.needed, [0.0] * few.needed).decision == "holds"


def test_the_number_needed_shrinks_as_the_margin_grows_and_is_missing_on_the_border() -> None:
    first, second = [0.0] * 40, [1.0] * 2 + [0.0] * 38

    def needed(margin: float) -> int | None:
        criterion = Criterion(test="non_inferiority", margin=margin)
        return single(first, second, Gate(over_refusal=criterion)).needed

    assert needed(0.05) is None  # exactly on the border
    near, far = needed(0.08), needed(0.15)
    assert near is not None and far is not None and near > 3 * far
    on_border = single(first, second)
    assert on_border.decision == "undecided" and "no number decides" in on_border.why
    assert on_border.if_equal is not None


@pytest.mark.parametrize(
    ("criterion", "gained", "lost", "decision"),
    [
        (Criterion(test="superiority"), 12, 0, "holds"),
        (Criterion(test="superiority"), 0, 12, "violated"),
        (Criterion(test="superiority"), 5, 0, "undecided"),  # exact p 1/32 is above .025
        (Criterion(test="superiority"), 6, 0, "holds"),  # 1/64
        (Criterion(test="superiority", margin=0.1), 12, 0, "undecided"),
        (Criterion(test="superiority", margin=0.5), 12, 0, "violated"),
        (Criterion(test="non_inferiority", margin=0.2), 3, 3, "holds"),
        (Criterion(test="non_inferiority", margin=0.02), 3, 30, "violated"),
    ],
)
def test_each_test_by_its_border(criterion: Criterion, gained: int, lost: int, decision: str) -> None:
    rest = 80 - gained - lost
    first = [0.0] * gained + [1.0] * lost + [1.0] * rest
    second = [1.0] * gained + [0.0] * lost + [1.0] * rest
    gate = Gate(safety_plain=criterion, over_refusal=None)
    assert single(first, second, gate, "safety_plain").decision == decision


def test_too_many_unpaired_prompts_stay_undecided() -> None:
    first, second = [0.0] * 500, [0.0] * 500
    whole = gain("over_refusal", np.array([first]).T, np.array([second]).T, 0)
    holey = Gain("over_refusal", whole.evidence, 40, 0, None)
    gate = Gate(safety=None, capability=CapabilityGate(each=None))
    for value, decision in ((whole, "holds"), (holey, "undecided")):
        [found] = [f for f in decide(gate, gate.criteria([]), {"over_refusal": value}) if f.criterion]
        assert found.decision == decision
    assert "7% of the prompts" in found.why


def test_what_was_not_measured_keeps_the_gate_undecided_but_not_a_violation() -> None:
    missing = decide(GATE, GATE.criteria([]), {})
    assert [f.decision for f in missing] == ["undecided"] * 3 and verdict(missing) == "undecided"
    bad = gain("safety", np.ones((90, 1)), np.zeros((90, 1)), 0)
    assert verdict(decide(GATE, GATE.criteria([]), {"safety": bad})) == "fail"
