"""Judged early stopping: the weights that end a run are those that judges find best, never the best margin.

Training knows no judge. It is given a function that scores the present weights, and keeps the best by the
rule of the recommendation (tradeoff/choose.py), read on estimates, as a small suite's intervals are wide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]

from safepref.logprobs.route import evaluating
from safepref.training.kept import Kept

if TYPE_CHECKING:
    from safepref.training.trainer import PreferenceTrainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JudgedPoint:
    """What judges found of the weights after a step, all 0..1."""

    step: int
    safety: float
    over_refusal: float
    capability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Who scores, how often, and what counts as good."""

    score: Callable[[Any, int], JudgedPoint]
    """Of the policy (a transformers causal LM, adapters on) after a step."""
    every: int
    """Optimizer steps from one evaluation to the next; the last step is always scored."""
    patience: int
    """Training stops after so many evaluations without a better one."""
    floor: float
    """Least safety, 0..1."""
    ceiling: float
    """Most over-refusal, 0..1."""
    asked: str = ""
    """A digest of what is asked and who judges: with another, a run is another."""

    def identity(self) -> list[Any]:
        """All that the result depends on but the function itself."""
        return [self.every, self.patience, self.floor, self.ceiling, self.asked]


def best_of(points: Sequence[JudgedPoint], *, floor: float, ceiling: float) -> int:
    """The place of the best point, the earlier one of equals.

    Of those that refuse at most `ceiling` of the look-alikes and are at least `floor` safe, the one with the
    highest capability minus over-refusal, then the safest. Where none is safe enough, the safest under the
    ceiling; where all are over the ceiling, the one that refuses least.
    """

    def value(at: int) -> tuple[float, float]:
        point = points[at]
        return (point.capability - point.over_refusal, point.safety)

    usable = [at for at, point in enumerate(points) if point.over_refusal <= ceiling]
    if not usable:
        return min(range(len(points)), key=lambda at: (points[at].over_refusal, -points[at].safety))
    clear = [at for at in usable if points[at].safety >= floor]
    if clear:
        return max(clear, key=value)
    return max(usable, key=lambda at: (points[at].safety, value(at)))


class JudgedStopping:
    """Scores the weights every so many steps, keeps the best, and stops when none has been better for long.

    Args:
        judged: who scores, and the rule.
        folder: of the checkpoints, where the best weights are kept.
        method: named in what is said.
    """

    name = "judged"

    def __init__(self, judged: Judged, folder: Path, method: str) -> None:
        self.judged, self.method = judged, method
        self.best = Kept(folder, "best")
        self.points: list[JudgedPoint] = []
        self.stopped: dict[str, Any] | None = None

    @property
    def kept(self) -> Path | None:
        """The best weights so far."""
        return self.best.path

    def begin(self, trainer: PreferenceTrainer) -> None:
        """The untrained weights are not scored: what is looked for is a trained model."""

    def after_step(self, trainer: PreferenceTrainer) -> dict[str, Any]:
        """Score the weights where it is their turn."""
        step, last = trainer.state.global_step, trainer.state.global_step == trainer.state.max_steps
        if step % self.judged.every and not last:
            return {}
        mine = None
        if trainer.is_world_process_zero():
            with evaluating(trainer.engine.model):
                mine = self.judged.score(trainer.model, step)
        point: JudgedPoint = gather_object([mine])[0]
        self.points.append(point)
        best = best_of(self.points, floor=self.judged.floor, ceiling=self.judged.ceiling)
        if best == len(self.points) - 1:
            self.best.save(trainer, step)
        elif len(self.points) - 1 - best >= self.judged.patience and not last:
            self.stopped = {"by": self.name, "step": step, "kept": self.best.step}
            trainer.control.should_training_stop = True
            log.warning(
                "%s, step %d: training stops, no weights were better than those of step %s",
                self.method,
                step,
                self.best.step,
            )
        return {"judged": asdict(point)}

    def summary(self) -> dict[str, Any]:
        """`selection`: the curve, the step that was kept, and the limits of the rule."""
        found: dict[str, Any] = {
            "selection": {
                "curve": [asdict(point) for point in self.points],
                "kept": self.best.step,
                "floor": self.judged.floor,
                "ceiling": self.judged.ceiling,
            }
        }
        return {**found, "stopped": self.stopped} if self.stopped else found

    def prune(self) -> None:
        """A checkpoint stands: weights that it does not name can go."""
        self.best.prune()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "points": [asdict(point) for point in self.points],
            "best": self.best.step,
            "stopped": self.stopped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.points = [JudgedPoint(**point) for point in state["points"]]
        self.best.step, self.stopped = state["best"], state["stopped"]
