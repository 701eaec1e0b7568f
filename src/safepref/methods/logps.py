"""What every loss reads and what it gives back: vectors of log-probabilities, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from safepref.errors import InputError


class LossOutput(NamedTuple):
    """The result of a loss. `losses` carries gradients, the rewards never do."""

    losses: Tensor
    """(B,), one value a pair (for AOT one a rank); the training loss is their mean."""
    chosen_rewards: Tensor
    """(B,), beta times the log-ratio of the chosen completion, detached."""
    rejected_rewards: Tensor
    """(B,), beta times the log-ratio of the rejected completion, detached."""


@dataclass(frozen=True, slots=True)
class Logps:
    """Log-probabilities of one micro-batch of B pairs, in nats and at least float32.

    A value is the sum over the completion's tokens, or their mean where the method's row in the table
    says `length_normalised` (then for the policy and the reference alike). Only policy vectors carry
    gradients.

    Raises:
        InputError: the vectors are not one-dimensional, differ in length, or are in half precision, in
            which sums over a completion lose whole nats.
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    policy_kl: Tensor | None = None
    """(M,), the policy on mismatched pairs (x_i, y_j); KTO's z0 needs it. M need not be B."""
    reference_kl: Tensor | None = None
    """(M,), the reference on the same mismatched pairs."""
    chosen_nll: Tensor | None = None
    """(B,), negative log-likelihood per token of the chosen text, with gradient, for ORPO and SLiC."""
    delta: float = 0.0
    """Running mean of past rewards: BCO's reward shift. Kept by whoever trains, and checkpointed."""
    weights: Tensor | None = None
    """(B,), how much each pair counts; None counts each once."""

    def __post_init__(self) -> None:
        size = self.policy_chosen.shape
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Tensor):
                continue
            if value.ndim != 1:
                raise InputError(f"{field.name} has shape {tuple(value.shape)}; give one value a pair, (B,)")
            if value.dtype not in (torch.float32, torch.float64):
                raise InputError(f"{field.name} is {value.dtype}; sum log-probabilities in float32")
            if field.name not in ("policy_kl", "reference_kl") and value.shape != size:
                raise InputError(
                    f"{field.name} has {value.shape[0]} values, policy_chosen has {size[0]}; give one a pair"
                )
        if (self.policy_kl is None) != (self.reference_kl is None):
            raise InputError("policy_kl and reference_kl belong together; give both or neither")
        if (
            self.policy_kl is not None
            and self.reference_kl is not None
            and self.policy_kl.shape != self.reference_kl.shape
        ):
            raise InputError(
                f"policy_kl has {self.policy_kl.shape[0]} values, reference_kl has "
                f"{self.reference_kl.shape[0]}; both are of the same mismatched pairs"
            )

    def __len__(self) -> int:
        """B, the number of pairs."""
        return self.policy_chosen.shape[0]

    @property
    def chosen_logratios(self) -> Tensor:
        """(B,), a = log pi(y_w|x) - log pi_ref(y_w|x)."""
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected_logratios(self) -> Tensor:
        """(B,), b = log pi(y_l|x) - log pi_ref(y_l|x)."""
        return self.policy_rejected - self.reference_rejected

    @property
    def margins(self) -> Tensor:
        """(B,), D = a - b."""
        return self.chosen_logratios - self.rejected_logratios


def with_rewards(losses: Tensor, logps: Logps, beta: float) -> LossOutput:
    """The losses beside the implicit rewards beta * a and beta * b (arXiv 2305.18290), each (B,)."""
    return LossOutput(
        losses, beta * logps.chosen_logratios.detach(), beta * logps.rejected_logratios.detach()
    )
