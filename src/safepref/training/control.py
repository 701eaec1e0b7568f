"""What may look at a run after each of its steps, and end it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from safepref.training.trainer import PreferenceTrainer


class StepControl(Protocol):
    """Looks after each optimizer step, may end training, and says which weights to end with.

    `after_step` comes before a checkpoint of that step, which keeps its state.
    """

    name: str
    stopped: dict[str, Any] | None

    @property
    def kept(self) -> Path | None:
        """The folder of the weights to end with; None for the last ones."""
        ...

    def begin(self, trainer: PreferenceTrainer) -> None:
        """Before the first step; not where a run goes on from a checkpoint."""
        ...

    def after_step(self, trainer: PreferenceTrainer) -> dict[str, Any]:
        """What is added to the step's log row."""
        ...

    def summary(self) -> dict[str, Any]:
        """What is added to the training summary."""
        ...

    def prune(self) -> None:
        """A checkpoint was written: remove what it does not name."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...
