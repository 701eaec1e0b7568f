"""The choice: the front, the floor, the ceiling, and the reasons given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safepref.tradeoff.choose import Point, pareto, recommend


def point(name: str, safety: float, refusal: float, ability: float, value: float = 1.0) -> Point:
    scores = {
        "safety": {"global": safety, "interval": [safety - 0.02, safety + 0.02]},
        "over_refusal": {"rate": refusal},
        "capability": {"mean": ability},
    }
    return Point(name, value, scores)


rates = st.floats(0, 1)
points = st.lists(
    st.builds(point, st.sampled_from(["nca", "dpo"]), rates, rates, rates), min_size=1, max_size=8
)


@given(points)
def test_nothing_on_the_front_is_beaten_and_all_else_is(found: list[Point]) -> None:
    front = pareto(found)
    assert front

    def value(p: Point) -> tuple[float, float, float]:
        return (p.safety, -p.over_refusal, p.capability)

    for p in found:
        dominated = any(
            all(a >= b for a, b in zip(value(q), value(p), strict=True)) and value(q) != value(p)
            for q in found
        )
        assert (p in front) == (not dominated)


@given(points, rates, rates)
def test_a_recommendation_respects_floor_and_ceiling(
    found: list[Point], floor: float, ceiling: float
) -> None:
    choice = recommend(found, floor=floor, ceiling=ceiling)
    if choice.point is None:
        assert all(p.over_refusal > ceiling for p in found)
        return
    assert choice.point.over_refusal <= ceiling
    if any(p.scores["safety"]["interval"][0] >= floor and p.over_refusal <= ceiling for p in found):
        assert choice.point.scores["safety"]["interval"][0] >= floor


def test_ability_decides_above_the_floor() -> None:
    safest, ablest = point("dpo", 0.99, 0.2, 0.40), point("nca", 0.95, 0.05, 0.42, 0.8)
    choice = recommend([safest, ablest], floor=0.9, ceiling=0.5)
    assert choice.point is ablest
    assert "of the 2 points on the Pareto front" in choice.why
    beaten = point("rdpo", 0.93, 0.3, 0.39)
    assert recommend([safest, beaten, ablest], floor=0.9, ceiling=0.5) == choice
    assert "nca at strength 0.8" in choice.why


def test_missing_the_floor_is_said() -> None:
    choice = recommend([point("nca", 0.7, 0.1, 0.4), point("dpo", 0.8, 0.1, 0.4)], floor=0.9, ceiling=0.5)
    assert choice.point is not None
    assert choice.point.method == "dpo"
    assert "no point's safety interval lies above the floor of 90%" in choice.why


def test_refusing_everything_is_not_recommended() -> None:
    choice = recommend([point("nca", 1.0, 0.9, 0.4)], floor=0.9, ceiling=0.5)
    assert choice.point is None
    assert "refuses more than 50%" in choice.why
