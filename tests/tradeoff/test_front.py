"""The Pareto front and the hypervolume: dominance by hand, closed forms, Monte Carlo, invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_points import lists, point, scores

from safepref.tradeoff.front import Point, capability_of, mathematics_of, pareto
from safepref.tradeoff.hypervolume import axes_of, hypervolume, hypervolumes

WORST = {"safety": 0.0, "over_refusal": 1.0, "capability": 0.0, "mathematics": 0.0}
clouds = st.integers(1, 4).flatmap(
    lambda d: st.lists(
        st.lists(st.integers(0, 6).map(lambda n: n / 6), min_size=d, max_size=d), min_size=1, max_size=7
    )
)


@given(lists)
def test_nothing_on_the_front_is_beaten_and_all_else_is(found: list[Point]) -> None:
    front = pareto(found)
    assert front

    def value(p: Point) -> tuple[float, ...]:
        return (p.safety, -p.over_refusal, p.capability, p.mathematics or 0.0)

    for p in found:
        dominated = any(
            all(a >= b for a, b in zip(value(q), value(p), strict=True)) and value(q) != value(p)
            for q in found
        )
        assert (p in front) == (not dominated)


def test_mathematics_alone_keeps_a_point_on_the_front() -> None:
    better, able = point("dpo", 0.9, 0.1, 0.5, sums=0.3), point("nca", 0.8, 0.2, 0.4, sums=0.4)
    assert pareto([better, able]) == [better, able]
    assert pareto([point("dpo", 0.9, 0.1, 0.5), point("nca", 0.8, 0.2, 0.4)])[0].method == "dpo"


def test_mathematics_is_the_mean_of_the_arithmetic_tasks_and_one_task_has_an_interval() -> None:
    part = {"tasks": {"arithmetic": 0.5, "arithmetic_chat": 0.3, "piqa": 1.0}, "intervals": {}}
    assert mathematics_of({"capability": part}) == (0.4, None)
    one = {"tasks": {"arithmetic": 0.5}, "intervals": {"arithmetic": [0.4, 0.6]}}
    assert mathematics_of({"capability": one}) == (0.5, [0.4, 0.6])
    assert mathematics_of({"capability": None}) == mathematics_of(None) == (None, None)


def test_what_is_asked_in_the_chat_is_capability_too_each_task_once() -> None:
    own = {"mean": 0.6, "interval": [0.5, 0.7], "tasks": {"piqa": 0.8, "arithmetic": 0.4}}
    asked = {"score": 0.3, "interval": [0.1, 0.5]}
    assert capability_of({"capability": own}) == (0.6, [0.5, 0.7])
    value, interval = capability_of({"capability": {**own, "chat": {"questions": asked}}})
    assert value == pytest.approx((0.8 + 0.4 + 0.3) / 3)
    half = (0.2**2 + 0.2**2) ** 0.5 / 3  # of the sum: 2 x .1 and .2, independent
    assert interval == pytest.approx([0.5 - half, 0.5 + half])
    unasked = {"mean": None, "interval": None, "tasks": {}, "chat": {"a": asked, "b": {"score": None}}}
    assert capability_of({"capability": unasked})[0] == 0.3
    assert capability_of(None) == (None, None)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_closed_forms(size: int) -> None:
    one = [0.5] * size
    assert hypervolume([one], [0.0] * size) == pytest.approx(0.5**size)
    assert hypervolume([one], [0.25] * size) == pytest.approx(0.25**size)
    assert hypervolume([one], [0.5] * size) == hypervolume([], one) == 0.0
    # Two boxes that overlap in a corner: inclusion and exclusion.
    a, b = [1.0] + [0.5] * (size - 1), [0.5] + [1.0] * (size - 1)
    both = np.prod(a) + np.prod(b) - 0.5**size
    assert hypervolume([a, b], [0.0] * size) == pytest.approx(float(both) if size > 1 else 1.0)


@given(clouds)
def test_it_is_the_share_of_a_grid_that_is_met(points: list[list[float]]) -> None:
    """Coordinates in sixths: a cell of the grid is met whole or not at all, so counting cells is exact."""
    size = len(points[0])
    grid = np.stack(np.meshgrid(*[np.arange(6) / 6 + 1 / 12] * size, indexing="ij"), -1).reshape(-1, size)
    met = (np.array(points)[:, None, :] >= grid).all(-1).any(0).mean()
    assert hypervolume(points, [0.0] * size) == pytest.approx(met, abs=1e-12)


def test_monte_carlo_and_a_point_more_never_takes_away() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((40, 4))
    draws = rng.random((20_000, 4))
    met = np.mean([(points >= draw).all(1).any() for draw in draws])
    found = hypervolume(points.tolist(), [0.0] * 4)
    assert found == pytest.approx(met, abs=4 * 0.5 / 20_000**0.5)
    assert hypervolume(points[:20].tolist(), [0.0] * 4) <= found
    inside = (points * 0.9).tolist()
    assert hypervolume([*points.tolist(), *inside], [0.0] * 4) == pytest.approx(found)


def test_each_method_has_the_volume_of_its_points_above_the_reference() -> None:
    found = [
        point("nca", 0.9, 0.2, 0.5, sums=0.4),
        point("nca", 0.8, 0.2, 0.5, sums=0.4, strength=0.5),
        point("dpo", 1.0, 1.0, 0.5, sums=0.4),
    ]
    volumes = hypervolumes(found, WORST)
    assert volumes == {"nca": pytest.approx(0.9 * 0.8 * 0.5 * 0.4), "dpo": 0.0}
    half = hypervolumes(found, WORST | {"safety": 0.5, "over_refusal": 0.5})
    assert half["nca"] == pytest.approx(0.4 * 0.3 * 0.5 * 0.4)


def test_sums_that_are_all_of_capability_do_not_count_twice() -> None:
    alone = [Point("nca", 1.0, scores(0.9, 0.2, 0.5, sums=0.5))]
    assert axes_of(alone) == ("safety", "over_refusal", "capability")
    assert hypervolumes(alone, WORST)["nca"] == pytest.approx(0.9 * 0.8 * 0.5)
