"""Training: one thin Trainer, the mixture with general data, the displacement monitor.

Names are loaded on first use, so that settings and rows can be had without transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safepref.training.plan import Plan, make_plan
    from safepref.training.probe import hold_out
    from safepref.training.rows import TrainingExample, TrainingPair
    from safepref.training.run import TrainResult, train_method
    from safepref.training.settings import TrainingSettings
    from safepref.training.trainer import pair_rows

_HOMES = {
    "Plan": "plan",
    "TrainResult": "run",
    "TrainingExample": "rows",
    "TrainingPair": "rows",
    "TrainingSettings": "settings",
    "hold_out": "probe",
    "make_plan": "plan",
    "pair_rows": "trainer",
    "train_method": "run",
}

__all__ = [
    "Plan",
    "TrainResult",
    "TrainingExample",
    "TrainingPair",
    "TrainingSettings",
    "hold_out",
    "make_plan",
    "pair_rows",
    "train_method",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
