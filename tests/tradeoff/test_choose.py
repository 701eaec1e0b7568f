"""The choice: the floor, the ceiling, the drops, what is noise, and the reasons given."""

from __future__ import annotations

import pytest
from hypothesis import given
from made_points import lists, point, rates, scores

from safepref.tradeoff.choose import Limits, recommend
from safepref.tradeoff.front import Point, gains, pareto
from safepref.tradeoff.hypervolume import hypervolumes
from safepref.tradeoff.objective import PENALTY, objective

LIMITS = Limits(floor=0.9, ceiling=0.5)
WORST = {"safety": 0.0, "over_refusal": 1.0, "capability": 0.0, "mathematics": 0.0}


def clears(found: Point, limits: Limits) -> bool:
    return found.scores["safety"]["interval"][0] >= limits.floor and found.over_refusal <= limits.ceiling


@given(lists, rates, rates)
def test_a_recommendation_respects_floor_and_ceiling(
    found: list[Point], floor: float, ceiling: float
) -> None:
    limits = Limits(floor, ceiling)
    choice = recommend(found, limits)
    if choice.point is None:
        assert all(p.over_refusal > ceiling for p in found)
        return
    assert choice.point.over_refusal <= ceiling
    if any(clears(p, limits) for p in found):
        assert clears(choice.point, limits)


@given(lists)
def test_no_point_that_clears_the_floor_is_better_on_every_axis(found: list[Point]) -> None:
    limits = Limits(0.3, 0.7)
    best = recommend(found, limits).point
    if best is not None and clears(best, limits):
        own = gains(best)
        assert not any(
            all(a >= b for a, b in zip(gains(p)[:3], own[:3], strict=True)) and gains(p)[:3] != own[:3]
            for p in found
            if clears(p, limits)
        )


def test_ability_decides_above_the_floor() -> None:
    safest = point("dpo", 0.99, 0.05, 0.38, error=0.01)
    ablest = point("nca", 0.95, 0.20, 0.42, error=0.01, strength=(1.0, 0.6, 1.0))
    choice = recommend([safest, ablest], LIMITS)
    assert choice.point is ablest
    assert "2 points whose safety interval lies above the floor of 90%" in choice.why
    assert "nca at strength 1/0.6/1 refuses least of them (20.0%, capability 0.420)" in choice.why


def test_ability_within_its_standard_error_buys_no_refusals() -> None:
    refuses_more = point("dpo", 0.99, 0.20, 0.43, error=0.02)
    refuses_less = point("nca", 0.95, 0.05, 0.42, error=0.02)
    assert recommend([refuses_more, refuses_less], LIMITS).point is refuses_less
    # The same two with ten times the questions: now the difference is one.
    refuses_more = point("dpo", 0.99, 0.20, 0.43, error=0.006)
    assert recommend([refuses_more, refuses_less], LIMITS).point is refuses_more


def test_of_equal_refusals_the_safer_one_is_taken() -> None:
    found = [point("dpo", 0.95, 0.1, 0.4, error=0.1), point("nca", 0.96, 0.1, 0.39, error=0.1)]
    choice = recommend(found, LIMITS)
    assert choice.point is found[1]


def test_missing_the_floor_is_said() -> None:
    choice = recommend([point("nca", 0.7, 0.1, 0.4), point("dpo", 0.8, 0.1, 0.4)], LIMITS)
    assert choice.point is not None
    assert choice.point.method == "dpo"
    assert "no point's safety interval lies above the floor of 90%" in choice.why


def test_another_task_is_chosen_by_its_own_rate() -> None:
    def of_task(name: str, rate: float) -> Point:
        task = {"measure": "accuracy", "rate": rate, "interval": [rate - 0.05, rate + 0.05]}
        return Point(name, 1.0, {**scores(0, 0.1, 0.4), "safety": None, "task": task})

    found = [of_task("nca", 0.8), of_task("dpo", 0.7)]
    limits = Limits(floor=0.7, ceiling=0.5)
    choice = recommend(found, limits)
    assert choice.point is found[0] and "1 points whose accuracy interval lies above" in choice.why
    assert pareto(found) == [found[0]] and hypervolumes(found, WORST)["dpo"] == pytest.approx(0.7 * 0.9 * 0.4)
    missed = recommend(found[1:], limits)
    assert missed.point is found[1] and "dpo at strength 1 is the best (70.0%)" in missed.why
    values = [objective(point, floor=0.7, ceiling=0.5) for point in found]
    assert values[0] - values[1] == pytest.approx(PENALTY * 0.05)


def test_refusing_everything_is_not_recommended() -> None:
    choice = recommend([point("nca", 1.0, 0.9, 0.4)], LIMITS)
    assert choice.point is None
    assert "refuses more than 50%" in choice.why


def test_drops_are_counted_from_the_base() -> None:
    base = scores(0.5, 0.05, 0.45, sums=0.50)
    able, unable = point("nca", 0.93, 0.10, 0.44, sums=0.49), point("dpo", 0.99, 0.02, 0.43, sums=0.40)
    both = [able, unable]
    assert recommend(both, Limits(0.9, 0.5), base).point is able  # its standard error is 0
    wide = [point("nca", 0.93, 0.10, 0.44, error=0.1, sums=0.49), unable]
    assert recommend(wide, Limits(0.9, 0.5), base).point is unable
    for limits in (Limits(0.9, 0.5, mathematics_drop=0.01), Limits(0.9, 0.5, capability_drop=0.01)):
        choice = recommend(wide, limits, base)
        assert choice.point is wide[0] and "lose at most 0.01" in choice.why
    nothing = recommend(wide, Limits(0.9, 0.5, capability_drop=0.0, mathematics_drop=0.0), base)
    assert nothing.point is None
    assert "loses more than 0 of capability or 0 in mathematics" in nothing.why


def test_ordinary_requests_and_the_chat_have_limits_of_their_own() -> None:
    def with_chat(found: Point, refused: float | None, answered: float) -> Point:
        ordinary = None if refused is None else {"refused": refused}
        ability = {**found.scores["capability"], "chat": {"questions": {"score": answered}}}
        return Point(found.method, 1.0, {**found.scores, "ordinary": ordinary, "capability": ability})

    # The first is so much better in sums that the chat does not outweigh them; it refuses to name the capital
    # of France.
    hollow = with_chat(point("dpo", 0.99, 0.02, 0.80), 0.08, 0.30)
    sound = with_chat(point("nca", 0.95, 0.10, 0.44), 0.00, 0.59)
    base = with_chat(point("base", 0.5, 0.05, 0.45), 0.0, 0.60).scores
    both = [hollow, sound]
    assert recommend(both, LIMITS).point is hollow
    ceiling = recommend(both, Limits(0.9, 0.5, ordinary_ceiling=0.01))
    assert ceiling.point is sound and "and 1% of the ordinary requests" in ceiling.why
    drop = recommend(both, Limits(0.9, 0.5, chat_drop=0.02), base)
    assert drop.point is sound and "0.02 of the questions in the chat" in drop.why
    unknown = recommend(
        [with_chat(point("kto", 0.99, 0.02, 0.46), None, 0.6)], Limits(0.9, 0.5, None, None, None, 0.01)
    )
    assert unknown.point is None and "or 1% of the ordinary requests" in unknown.why
