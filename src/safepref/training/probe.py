"""A probe of pairs that are kept out of training: where their likelihood goes, and the mass on refusals.

What displacement takes from the chosen answers of refusal pairs can go to harmful ones (arXiv 2410.08847,
section 6), which training pairs alone cannot show.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine
from safepref.logprobs.route import evaluating
from safepref.store import sha256_json
from safepref.training.plan import CHOSEN, REJECTED
from safepref.training.rows import TrainingPair

OPENING_TOKENS = 4
"""An answer that begins with so many tokens of a refusal is taken for one."""
OPENINGS = 16
"""At most so many openings, the most frequent ones: their mass is summed for each prompt."""
MOST = 0.5
"""Share of the pairs of a kind that may be held out."""


def hold_out(
    pairs: Sequence[TrainingPair], count: int, seed: int = 0
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """The pairs that are trained on, and a probe of `count` whose prompts training never meets.

    The kinds are drawn from in turn, by content and seed, so that the order of the pairs does not matter.

    Raises:
        InputError: the probe would take more than half of the pairs of every kind.
    """
    groups: dict[str, dict[tuple[int, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, pair in enumerate(pairs):
        groups[pair.kind][pair.row.prompt_ids].append(at)
    room = {kind: int(MOST * sum(map(len, members.values()))) for kind, members in groups.items()}
    queues = {
        kind: sorted(members.values(), key=lambda group: sha256_json([seed, pairs[group[0]].row.prompt_ids]))
        for kind, members in sorted(groups.items())
    }
    held: set[int] = set()
    while len(held) < count and any(queues.values()):
        for kind, queue in queues.items():
            if queue and len(held) < count:
                group = queue.pop(0)
                if len(group) <= min(room[kind], count - len(held)):
                    held.update(group)
                    room[kind] -= len(group)
    if len(held) < count:
        raise InputError(
            f"training.displacement.probe is {count}, but only {len(held)} of {len(pairs)} pairs can be held "
            "out (at most half of each kind); lower it"
        )
    probe = [pair for at, pair in enumerate(pairs) if at in held]
    return [pair for at, pair in enumerate(pairs) if at not in held], probe


def refusal_openings(pairs: Sequence[TrainingPair]) -> tuple[tuple[int, ...], ...]:
    """The most frequent first tokens of the chosen answers of harmful pairs; none begins with another.

    An opening that rejected answers have as often is no mark of a refusal, and wrong labels put harmful
    answers among the chosen ones; such openings are left out.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    for pair in pairs:
        if pair.kind == "harmful":
            counts[pair.row.completions[CHOSEN][:OPENING_TOKENS]] += 1
            counts[pair.row.completions[REJECTED][:OPENING_TOKENS]] -= 1
    ranked = sorted((-count, opening) for opening, count in counts.items() if count > 0)
    found: list[tuple[int, ...]] = []
    for _, opening in ranked:
        # Disjoint events alone have probabilities that add up.
        if not any(opening[: len(o)] == o or o[: len(opening)] == opening for o in found):
            found.append(opening)
    return tuple(found[:OPENINGS])


@dataclass(slots=True)
class Probe:
    """Scores the held-out pairs against their own values at the start, where the policy is the reference."""

    pairs: Sequence[TrainingPair]
    openings: Sequence[tuple[int, ...]]
    start: list[list[float]] = field(default_factory=list)
    """(P, 2) log-probs of chosen and rejected at the start, in nats."""

    def score(self, engine: LogprobEngine) -> dict[str, dict[str, float]]:
        """By kind: `n`, mean changes `chosen` and `rejected` in nats, their difference `margin`, and
        `refusal_mass`, the mean probability that an answer begins with one of the openings.

        The first call sets the start. No gradient is kept.
        """
        rows = [TokenRow(pair.row.prompt_ids, (*pair.row.completions, *self.openings)) for pair in self.pairs]
        with evaluating(engine.model):
            sums = engine.completion_logps(rows).sums.cpu()
        answers, masses = sums[:, :2].tolist(), sums[:, 2:].double().exp().sum(-1).tolist()
        self.start = self.start or answers
        found: dict[str, dict[str, float]] = {}
        for kind in sorted({pair.kind for pair in self.pairs}):
            mine = [at for at, pair in enumerate(self.pairs) if pair.kind == kind]
            chosen, rejected = (
                sum(answers[at][side] - self.start[at][side] for at in mine) / len(mine)
                for side in (CHOSEN, REJECTED)
            )
            found[kind] = {
                "n": len(mine),
                "chosen": chosen,
                "rejected": rejected,
                "margin": chosen - rejected,
            }
            if self.openings:
                found[kind]["refusal_mass"] = sum(masses[at] for at in mine) / len(mine)
        return found

    def about(self) -> dict[str, Any]:
        """What it is made of, for the summary."""
        return {"pairs": len(self.pairs), "openings": len(self.openings)}
