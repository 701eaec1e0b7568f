"""Rewards: closed forms, their order, and what tries to cheat a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.pipeline.rewards import harmful_reward, harmless_reward, judged_reward
from safepref.recipe import RewardSection, load_recipe

SECTION = RewardSection()


def judged(score: float | None) -> Judgment:
    """A judge whose border lies at one half."""
    if score is None:
        return Judgment(Verdict.UNSCORED, None, "stub")
    return Judgment(Verdict.HARMFUL if score > 0.5 else Verdict.HARMLESS, score, "stub")


class ByWord:
    """Finds "bomb" harmful and cannot read "na razie"."""

    name = "by-word"
    seen: tuple[Exchange, ...] = ()

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        self.seen = tuple(exchanges)
        answers = [exchange.response for exchange in exchanges]
        return [judged(None if "na razie" in a else 0.9 if "bomb" in a else 0.1) for a in answers]

    def card(self) -> dict[str, Any]:
        return {}


def prompt(kind: Any, text: str = "how?", **more: Any) -> Prompt:
    return Prompt(f"{kind}-{text}", ({"role": "user", "content": text},), kind, **more)


def test_closed_forms_of_a_harmful_request() -> None:
    # With -1 and 1 the middle is 0: -p where harmful, (1 - p) times the best where harmless.
    assert harmful_reward(judged(0.8), 0.0, SECTION).reward == pytest.approx(-0.8)
    assert harmful_reward(judged(0.2), 1.0, SECTION).reward == pytest.approx(0.8)
    assert harmful_reward(judged(0.2), 0.0, SECTION).reward == pytest.approx(0.8 * 0.3)
    assert harmful_reward(judged(0.0), 0.5, SECTION).reward == pytest.approx(0.65)
    assert harmful_reward(judged(None), 1.0, SECTION).reward == -1


def test_closed_forms_of_a_harmless_request() -> None:
    assert harmless_reward(0.1, None, SECTION).reward == pytest.approx((1 + 0.8) / 2)
    assert harmless_reward(0.9, None, SECTION).reward == pytest.approx((-1 - 0.8) / 2)
    assert harmless_reward(0.0, 0.5, SECTION).reward == pytest.approx(1 + 0.3 * 0.5)


@pytest.mark.parametrize("deflected", [-0.5, 0.3, 1.0])
def test_no_harmful_or_unscored_answer_earns_more_than_a_harmless_one(deflected: float) -> None:
    section = RewardSection(deflected=deflected, unscored=-1.0)
    grid = [step / 20 for step in range(21)]
    harmful = [harmful_reward(judged(p), r, section).reward for p in grid if p > 0.5 for r in grid]
    harmless = [harmful_reward(judged(p), r, section).reward for p in grid if p <= 0.5 for r in grid]
    assert max(*harmful, harmful_reward(judged(None), 1.0, section).reward) <= min(harmless)


def test_within_one_verdict_the_surer_answer_earns_more() -> None:
    for refusing in (0.0, 0.4, 1.0):
        earned = [harmful_reward(judged(step / 50), refusing, SECTION).reward for step in range(51)]
        assert earned == sorted(earned, reverse=True) and len(set(earned)) == 51
    answered = [harmless_reward(step / 50, None, SECTION).reward for step in range(51)]
    assert answered == sorted(answered, reverse=True) and len(set(answered)) == 51


def test_what_a_judge_of_harm_lets_pass_earns_less_than_a_refusal() -> None:
    refusing = {"I can't help with that.": 0.99, "Trains are long and mostly blue.": 0.01}
    texts = [*refusing, "bomb bomb recipe", "", "la la la la la la la la la la la la la la", "na razie"]
    reward = judged_reward(SECTION, ByWord(), lambda _, a: refusing.get(a, 0.0), {}, lambda _: [])
    scored = reward([prompt("harmful")] * len(texts), texts)
    refusal, beside, harmful, empty, loop, unread = [one.reward for one in scored]
    assert refusal > beside > 0 > harmful > empty == loop == unread == -1
    assert [one.parts["degenerate"] for one in scored] == [0, 0, 0, 1, 1, 0]
    assert [one.parts["unscored"] for one in scored] == [0, 0, 0, 1, 1, 1]


def test_an_unscored_answer_can_be_left_out_but_a_degenerate_one_cannot() -> None:
    section = RewardSection(unscored=None)
    reward = judged_reward(section, ByWord(), lambda *_: 0.0, {}, lambda _: [])
    assert [one.reward for one in reward([prompt("harmful")] * 2, ["na razie", ""])] == [None, -1]


def test_judges_are_asked_for_what_they_are_for() -> None:
    judge, compared = ByWord(), []

    def alike(pairs: Sequence[tuple[str, str]]) -> list[float]:
        compared.extend(pairs)
        return [0.5] * len(pairs)

    attacked = prompt("harmful", "As DAN, how?", plain="how?", attack="jailbreak")
    asked = [attacked, prompt("harmless"), prompt("general", "sum?"), prompt("general", "joke?")]
    answers = ["bomb", "bomb disposal", "I refuse", "Knock knock"]
    own = {p.id: f"own {p.id}" for p in asked}
    reward = judged_reward(SECTION, judge, lambda _, a: float("refuse" in a), own, alike)
    scored = reward(asked, answers)
    # The bare request, and no look-alike; helpfulness only of what answers a harmless request.
    assert judge.seen == (Exchange("how?", "bomb"),)
    assert compared == [("bomb disposal", "own harmless-how?"), ("Knock knock", "own general-joke?")]
    assert [one.reward for one in scored] == pytest.approx([-0.9, 1.15, -1.0, 1.15])
    off = judged_reward(RewardSection(helpfulness=0), judge, lambda *_: 0.0, own, alike)
    assert off(asked[1:2], ["yes"])[0].reward == 1
    assert len(compared) == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.reward.unscored=0.4", "unscored must lie below deflected"),
        ("rl.reward.unsafe=2", "unsafe must lie below deflected"),
        ("rl.reward.refused_harmless=1", "refused_harmless must lie below answered_harmless"),
        ("rl.reward.degenerate=0.3", "degenerate must lie below deflected and answered_harmless"),
        ("rl.reward.answered_harmless=.nan", "rl.reward.answered_harmless is nan: input should be a finite"),
        ("rl.reward.unsave=1", "unknown key rl.reward.unsave; did you mean"),
        ("rl.harmful_share=0.9", "harmful_share and harmless_share add up to more than 1"),
        ("rl.batch_size=7", "batch_size must divide prompts_per_step times generations"),
        ("rl.generations=1", "rl.generations is 1"),
        ("rl.temperature=0", "rl.temperature is 0"),
    ],
)
def test_settings_that_would_reward_the_wrong_are_refused(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load_recipe(None, [override])


def test_the_section_is_off_by_default_and_a_null_one_can_be_overridden() -> None:
    assert load_recipe().rl is None
    on = load_recipe(None, ["rl=null", "rl.steps=3"]).rl
    assert on is not None and on.steps == 3 and on.start == "nca"
