"""What is done when the chosen answers lose likelihood while the margin grows (arXiv 2410.08847).

Training warns, stops with the last weights before the fall, or lowers the rate until the fall ends. It looks
at a held-out probe where there is one, else at the training pairs themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]

from safepref.training.kept import Kept
from safepref.training.monitor import PATIENCE, Monitor
from safepref.training.probe import Probe
from safepref.training.settings import Displacement

if TYPE_CHECKING:
    from safepref.training.trainer import PreferenceTrainer

log = logging.getLogger(__name__)

Moved = Mapping[str, Mapping[str, float]]
"""By kind of pair: the changes of `chosen` and `rejected` in nats."""


class DisplacementControl:
    """Looks after each step, or every `settings.every` of them with a probe, and acts as the recipe asks.

    Args:
        settings: what counts as a fall and what is done.
        monitor: the trainer's, which watches the training pairs.
        probe: held-out pairs, if there are any.
        folder: of the checkpoints, where the last good weights are kept for `stop`.
    """

    name = "displacement"

    def __init__(self, settings: Displacement, monitor: Monitor, probe: Probe | None, folder: Path) -> None:
        self.settings, self.monitor, self.probe = settings, monitor, probe
        self.good = Kept(folder, "good")
        self.curve: list[dict[str, Any]] = []
        self.lowered: list[dict[str, Any]] = []
        self.stopped: dict[str, Any] | None = None
        self._depth: dict[str, float] = {}

    @property
    def kept(self) -> Path | None:
        """The weights to end with: those before the fall, where it stopped training."""
        return self.good.path if self.stopped else None

    @property
    def factor(self) -> float:
        """What the rate has been multiplied by."""
        return float(self.settings.lower_to ** len(self.lowered))

    def begin(self, trainer: PreferenceTrainer) -> None:
        """Before the first step."""
        if self.probe is not None:
            self._look(trainer, self.probe, 0)
        if self.settings.action == "stop":
            self.good.save(trainer, 0)

    def after_step(self, trainer: PreferenceTrainer) -> dict[str, Any]:
        """Look, act, and say in the step's log row what was found."""
        step, row = trainer.state.global_step, dict[str, Any]()
        due = step % self.settings.every == 0 or step == trainer.state.max_steps
        if self.probe is not None and due:
            row["probe"] = self._look(trainer, self.probe, step)
        if self.probe is None or due:
            self._act(trainer, step, self._fallen(), due)
        if self.settings.action == "lower":
            row["rate_factor"] = self.factor
        return row

    def _look(self, trainer: PreferenceTrainer, probe: Probe, step: int) -> dict[str, Any]:
        # All processes act on the first one's figures: rounding must not let one of them stop alone.
        found: dict[str, Any] = gather_object([probe.score(trainer.engine)])[0]
        self.curve.append({"step": step, "kinds": found})
        return found

    def _fallen(self) -> Moved:
        """The kinds of pairs whose chosen answers have fallen under a growing margin."""
        fall = self.settings.fall
        if self.probe is None:
            trends = self.monitor.trends.items()
            return {
                kind: {"chosen": trend.chosen, "rejected": trend.rejected}
                for kind, trend in sorted(trends)
                if trend.displaced(fall)
            }
        last = self.curve[-1]["kinds"]
        return {kind: v for kind, v in last.items() if v["chosen"] < -fall and v["margin"] > fall}

    def _act(self, trainer: PreferenceTrainer, step: int, fallen: Moved, due: bool) -> None:
        if self.probe is not None:
            for kind, moved in fallen.items():
                self.monitor.warn(f"held-out {kind}", step, moved["chosen"], moved["rejected"])
        if self.settings.action == "stop":
            if fallen:
                self._stop(trainer, step, fallen)
            elif due:
                self.good.save(trainer, step)
        elif self.settings.action == "lower" and fallen:
            self._lower(trainer, step, fallen)

    def _stop(self, trainer: PreferenceTrainer, step: int, fallen: Moved) -> None:
        self.stopped = {"by": self.name, "step": step, "kept": self.good.step, "kinds": sorted(fallen)}
        trainer.control.should_training_stop = True
        log.warning(
            "%s, step %d: training stops, the chosen answers of %s pairs have fallen; it ends with the "
            "weights of step %s",
            self.monitor.method,
            step,
            " and ".join(sorted(fallen)),
            self.good.step,
        )

    def _lower(self, trainer: PreferenceTrainer, step: int, fallen: Moved) -> None:
        """Once in each window, and only while the answers sink deeper than when it was lowered last."""
        window = self.settings.every if self.probe is not None else PATIENCE
        if self.lowered and step - self.lowered[-1]["step"] < window:
            return
        if all(moved["chosen"] >= self._depth.get(kind, 0.0) for kind, moved in fallen.items()):
            return
        self._depth.update((kind, moved["chosen"]) for kind, moved in fallen.items())
        self.lowered.append({"step": step, "kinds": sorted(fallen)})
        trainer.scale_rate(self.settings.lower_to)
        log.warning(
            "%s, step %d: the chosen answers of %s pairs fall; the rate is now %.3g of what was planned",
            self.monitor.method,
            step,
            " and ".join(sorted(fallen)),
            self.factor,
        )

    def summary(self) -> dict[str, Any]:
        """What is new in a training summary, nothing where nothing was asked for."""
        found: dict[str, Any] = {}
        if self.probe is not None:
            found["probe"] = {**self.probe.about(), "curve": self.curve}
        if self.lowered:
            found["lowered"] = {"factor": self.factor, "at": self.lowered}
        if self.stopped:
            found["stopped"] = self.stopped
        return found

    def prune(self) -> None:
        """A checkpoint stands: weights that it does not name can go."""
        self.good.prune()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "good": self.good.step,
            "curve": list(self.curve),
            "lowered": list(self.lowered),
            "stopped": self.stopped,
            "depth": dict(self._depth),
            "start": self.probe.start if self.probe is not None else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; the rate itself comes back with the schedule."""
        self.good.step, self.curve, self.lowered = state["good"], state["curve"], state["lowered"]
        self.stopped, self._depth = state["stopped"], state["depth"]
        if self.probe is not None:
            self.probe.start = state["start"]
