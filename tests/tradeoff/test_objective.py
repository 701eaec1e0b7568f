"""The scalar of a search: the recommendation's own order where the limits hold, a slope where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from test_choose import point, points, rates

from safepref.tradeoff.choose import Point, recommend
from safepref.tradeoff.objective import LOWEST, objective


@given(points, rates, rates)
def test_of_clear_points_the_highest_is_as_good_as_the_recommended(
    found: list[Point], floor: float, ceiling: float
) -> None:
    clear = [p for p in found if p.scores["safety"]["interval"][0] >= floor and p.over_refusal <= ceiling]
    if not clear:
        return
    best = max(clear, key=lambda p: objective(p, floor=floor, ceiling=ceiling))
    named = recommend(found, floor=floor, ceiling=ceiling).point
    assert named is not None
    assert best.capability - best.over_refusal == named.capability - named.over_refusal


@given(points, rates, rates)
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
