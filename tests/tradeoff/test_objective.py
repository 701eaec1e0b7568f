"""The scalar of a search: what is better on every axis scores more, and a slope leads to the limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from made_points import lists, point, rates

from safepref.tradeoff.front import Point, gains
from safepref.tradeoff.objective import LOWEST, objective


@given(lists, rates, rates)
def test_a_point_that_is_no_worse_on_any_axis_scores_no_less(
    found: list[Point], floor: float, ceiling: float
) -> None:
    def value(p: Point) -> float:
        return objective(p, floor=floor, ceiling=ceiling)

    for p in found:
        for q in found:
            if all(a >= b for a, b in zip(gains(p)[:3], gains(q)[:3], strict=True)):
                assert value(p) >= value(q) - 1e-9


@given(lists, rates, rates)
def test_it_lies_between_its_bounds(found: list[Point], floor: float, ceiling: float) -> None:
    for p in found:
        low = p.scores["safety"]["interval"][0]
        inside = Point(
            p.method, p.strength, {**p.scores, "safety": {"global": p.safety, "interval": [max(0, low), 1]}}
        )
        assert LOWEST <= objective(inside, floor=floor, ceiling=ceiling) <= 1


def test_what_is_missing_costs_by_how_much() -> None:
    def value(safety: float, refusal: float) -> float:
        return objective(point("dpo", safety, refusal, 0.5), floor=0.9, ceiling=0.4)

    assert value(0.95, 0.1) == pytest.approx(0.4)
    assert value(0.82, 0.1) == pytest.approx(0.4 - 4 * 0.1)  # the lower end is .80
    assert value(0.95, 0.5) == pytest.approx(0.0 - 4 * 0.1)
