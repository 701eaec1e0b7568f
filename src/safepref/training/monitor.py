"""Watches where the likelihood goes: each step's losses, and displacement of the chosen answers.

A margin can grow while the chosen answer loses likelihood, and what it loses goes anywhere, to harmful
answers too (arXiv 2410.08847). So the change of both answers' log-probs against the reference is logged for
every method, apart for each kind of pair, and a fall of the chosen ones under a growing margin is reported.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

log = logging.getLogger(__name__)

FALL = 2.0
"""Nats: a smoothed fall of the chosen log-prob beyond this, under a margin beyond it, is reported."""

SMOOTHING = 0.8
"""Share of the past in the running means: they look back about five steps."""

PATIENCE = 5
"""Steps with pairs of a kind before it is reported: the first means rest on a handful of pairs."""


@dataclass(slots=True)
class Trend:
    """Running means for one kind of pair, in nats against the reference."""

    steps: int = 0
    chosen: float = 0.0
    rejected: float = 0.0

    def update(self, chosen: float, rejected: float) -> None:
        """Take in one step's means."""
        past = SMOOTHING if self.steps else 0.0
        self.chosen = past * self.chosen + (1 - past) * chosen
        self.rejected = past * self.rejected + (1 - past) * rejected
        self.steps += 1

    def displaced(self, fall: float = FALL) -> bool:
        """The chosen answers fall by more than `fall` nats while the margin grows by more."""
        return self.steps >= PATIENCE and self.chosen < -fall and self.chosen - self.rejected > fall


@dataclass(slots=True)
class Monitor:
    """Collects what the micro-batches of a step say, and turns it into one log row a step."""

    method: str
    fall: float = FALL
    trends: dict[str, Trend] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    _pairs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, pairs: Iterable[tuple[str, float, float]], parts: Mapping[str, float]) -> None:
        """Take in a micro-batch.

        Args:
            pairs: for each its kind, and the changes of the chosen and the rejected completion's summed
                log-prob against the reference, in nats.
            parts: means over the micro-batch: parts of the loss, rewards, accuracy.
        """
        for kind, chosen, rejected in pairs:
            self._pairs[kind].append((chosen, rejected))
        for name, value in parts.items():
            self._parts[name].append(value)

    def finish_step(self, step: int) -> dict[str, Any]:
        """The step's log row: means of the parts, and n, chosen and rejected of each kind."""
        kinds: dict[str, dict[str, float]] = {}
        for kind, values in sorted(self._pairs.items()):
            chosen = sum(a for a, _ in values) / len(values)
            rejected = sum(b for _, b in values) / len(values)
            kinds[kind] = {"n": len(values), "chosen": chosen, "rejected": rejected}
            trend = self.trends.setdefault(kind, Trend())
            trend.update(chosen, rejected)
            if trend.displaced(self.fall):
                self.warn(kind, step, trend.chosen, trend.rejected)
        parts = {name: sum(values) / len(values) for name, values in sorted(self._parts.items())}
        self._pairs.clear()
        self._parts.clear()
        return {**parts, "kinds": kinds}

    def warn(self, kind: str, step: int, chosen: float, rejected: float) -> None:
        """Report a fall, once for each kind."""
        if any(warning["kind"] == kind for warning in self.warnings):
            return
        self.warnings.append({"kind": kind, "step": step, "chosen": chosen, "rejected": rejected})
        log.warning(
            "%s, step %d: the chosen answers of %s pairs have lost %.1f nats while the margin grew to %.1f: "
            "likelihood moves to neither answer; raise the weight of the chosen NLL, or lower the rate",
            self.method,
            step,
            kind,
            -chosen,
            chosen - rejected,
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; only between steps."""
        return {
            "trends": {kind: asdict(trend) for kind, trend in self.trends.items()},
            "warnings": list(self.warnings),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trends = {kind: Trend(**trend) for kind, trend in state["trends"].items()}
        self.warnings = list(state["warnings"])
