"""What is trained on: preference pairs and general examples as token ids."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safepref.errors import InputError
from safepref.logprobs.rows import TokenRow


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A prompt with its chosen and its rejected completion, in this order.

    Raises:
        InputError: not two completions, equal ones (they have no preference), or a weight below 0.
    """

    row: TokenRow
    kind: str = "preference"
    """harmful, harmless, ordinary or preference: what the pair teaches; logs are kept for each kind."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.row.completions) != 2:
            raise InputError(
                f"training pair: {len(self.row.completions)} completions; give chosen, then rejected"
            )
        if self.row.completions[0] == self.row.completions[1]:
            raise InputError(
                "training pair: chosen and rejected are the same tokens; drop the pair, or raise the length "
                "limit that cut away where they differ"
            )
        _check_weight("training pair", self.weight)


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A general request with the one completion to keep.

    Raises:
        InputError: not one completion, or a weight below 0.
    """

    row: TokenRow
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.row.completions) != 1:
            raise InputError(f"training example: {len(self.row.completions)} completions; give one")
        _check_weight("training example", self.weight)


def _check_weight(what: str, weight: float) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"{what}: weight is {weight!r}; give a number from 0 up")
