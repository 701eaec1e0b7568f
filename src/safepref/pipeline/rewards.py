"""What an answer earns in reinforcement learning: from the select judge, the refusal judge and helpfulness.

Half of what a judged answer earns follows the verdict, half the judge's probability, so that a better answer
earns more within one verdict too: a group whose answers all have one verdict would teach nothing.

- A harmful request. Harmful: between `unsafe` and the middle of `unsafe` and `safe`. Harmless: between that
  middle and `safe` for a clear refusal, `deflected` standing for `safe` where nothing is refused, in between
  by P(refusal). An answer that is neither harmful nor a refusal may be a good one (a safe alternative), or
  words beside the point that a judge of harm lets pass: the second is the cheapest way to cheat such a judge,
  so it earns less than a refusal. No verdict: `unscored`, below both.
- A harmless look-alike or an ordinary request: between `refused_harmless` and `answered_harmless` by
  P(refusal); no judge of harm is asked, which would drop just the look-alikes that teach the boundary. An
  answer that does not refuse earns up to `helpfulness` on top.
- Empty, wordless and looping answers: `degenerate`, whatever was asked and whatever a judge says.

Helpfulness is the cosine (clipped at 0) of the sentence embeddings of the answer and of the base's own greedy
answer to the same request: keeping what the base would have said, in any words. The answer's likelihood under
the base was not taken: the KL to the start holds that already, and it is highest for short and stale phrases,
which is where reinforcement drifts by itself. Nothing here makes answers better than the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from safepref.data.records import Prompt
from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.judges.degenerate import degenerate
from safepref.judges.refusal import THRESHOLD
from safepref.recipe import RewardSection
from safepref.training.grpo import RewardFunction, Scored

Refusing = Callable[[str, str], float]
"""(prompt, answer) -> P(the answer refuses)."""
Alike = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Pairs of texts -> how alike each two are, 0 to 1."""


def judged_reward(
    section: RewardSection,
    judge: Judge,
    refused: Refusing,
    own: Mapping[str, str],
    alike: Alike,
) -> RewardFunction:
    """The reward function of a run.

    Args:
        section: what each kind of answer earns.
        judge: the select judge; it sees the bare request, without an attack's wrapping.
        refused: P(refusal).
        own: the base's own answers, by prompt id, to the harmless and general prompts.
        alike: compares answers with these.
    """

    def reward(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scored]:
        asked = list(zip(prompts, answers, strict=True))
        sound = [at for at, (_, answer) in enumerate(asked) if not degenerate(answer)]
        harmful = [at for at in sound if asked[at][0].kind == "harmful"]
        shown = [Exchange(asked[at][0].request, asked[at][1]) for at in harmful]
        verdicts = dict(zip(harmful, judge.judge(shown) if shown else [], strict=True))
        refusing = {at: refused(asked[at][0].text, asked[at][1]) for at in sound}
        helped = {
            at: own[asked[at][0].id]
            for at in sound
            if at not in verdicts
            and refusing[at] < THRESHOLD
            and asked[at][0].id in own
            and section.helpfulness
        }
        values = alike([(asked[at][1], text) for at, text in helped.items()]) if helped else []
        helpful = dict(zip(helped, values, strict=True))
        return [
            _degenerate(prompt, section)
            if at not in refusing
            else harmful_reward(verdicts[at], refusing[at], section)
            if at in verdicts
            else harmless_reward(refusing[at], helpful.get(at), section)
            for at, (prompt, _) in enumerate(asked)
        ]

    return reward


def harmful_reward(judgment: Judgment, refusing: float, section: RewardSection) -> Scored:
    """What an answer to a harmful request earns; in the log, shares of harmful, refusing and unscored ones.

    Args:
        judgment: the judge's.
        refusing: P(refusal), 0..1.
        section: what each kind of answer earns.
    """
    refuses = refusing >= THRESHOLD
    parts = {"unsafe": 0.0, "unscored": 0.0, "degenerate": 0.0, "refused": float(refuses)}
    if judgment.verdict is Verdict.UNSCORED or judgment.score is None:
        return Scored(section.unscored, {**parts, "unscored": 1.0})
    harmful = judgment.verdict is Verdict.HARMFUL
    best = section.deflected + (section.safe - section.deflected) * refusing
    middle = (section.unsafe + section.safe) / 2
    if harmful:
        value = middle + (section.unsafe - middle) * judgment.score
    else:
        best = max(best, middle)  # whatever `deflected` is, no less than what is harmful
        value = best + (middle - best) * judgment.score
    return Scored(value, {**parts, "unsafe": float(harmful), "safety": value})


def harmless_reward(refusing: float, helpful: float | None, section: RewardSection) -> Scored:
    """What an answer to a harmless request earns; in the log, the share of refusals and mean helpfulness.

    Args:
        refusing: P(refusal), 0..1.
        helpful: likeness to the base's own answer, 0..1; None where it refuses or the base gave none.
        section: what each kind of answer earns.
    """
    refuses = refusing >= THRESHOLD
    verdict = section.refused_harmless if refuses else section.answered_harmless
    graded = section.answered_harmless + (section.refused_harmless - section.answered_harmless) * refusing
    value = (verdict + graded) / 2
    parts = {"over_refused": float(refuses), "degenerate": 0.0, "answering": value}
    if helpful is None:
        return Scored(value, parts)
    return Scored(value + section.helpfulness * helpful, {**parts, "helpfulness": helpful})


def _degenerate(prompt: Prompt, section: RewardSection) -> Scored:
    harmful = {"unsafe": 0.0, "unscored": 1.0, "refused": 0.0}
    other = {} if prompt.kind != "harmful" else harmful
    return Scored(section.degenerate, {**other, "degenerate": 1.0})


def embedded_likeness(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Cosines of all-MiniLM-L6-v2's sentence embeddings (arXiv 1908.10084), negative ones as 0."""
    from safepref.data.embed import embed

    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, embed(texts), strict=True))
    return [min(1.0, max(0.0, float(vectors[one] @ vectors[other]))) for one, other in pairs]
