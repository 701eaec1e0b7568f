"""Weights put aside while a run goes on, to end with in place of the last ones."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safepref.training.trainer import PreferenceTrainer


@dataclass(slots=True)
class Kept:
    """One set of weights beside the checkpoints: `FOLDER/NAME-STEP`, written whole or not at all.

    An older set goes only with the checkpoint that names its successor, so that a run which is killed between
    the two still finds what its last checkpoint speaks of.
    """

    folder: Path
    name: str
    step: int | None = None
    """The optimizer step whose weights they are; None before any were kept."""

    @property
    def path(self) -> Path | None:
        """Where they lie."""
        return None if self.step is None else self.folder / f"{self.name}-{self.step}"

    def save(self, trainer: PreferenceTrainer, step: int) -> None:
        """Keep the present weights instead."""
        self.step = step
        place, part = self.folder / f"{self.name}-{step}", self.folder / f".{self.name}-{step}.part"
        if trainer.args.should_save:
            for stale in (place, part):
                shutil.rmtree(stale, ignore_errors=True)
        trainer.save_model(str(part))
        if trainer.args.should_save:
            part.rename(place)

    def prune(self) -> None:
        """Remove the older ones."""
        for other in self.folder.glob(f"{self.name}-*"):
            if other != self.path:
                shutil.rmtree(other)
