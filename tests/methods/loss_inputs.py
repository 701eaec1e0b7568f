"""Log-probs to put into the losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from safepref.methods import METHODS, Logps


def make(
    a: list[float] | Tensor,
    b: list[float] | Tensor,
    *,
    kl: list[float] | None = None,
    reference: float = -20.0,
    delta: float = 0.0,
) -> Logps:
    """Pairs with log-ratios a (chosen) and b (rejected), in double precision, the policy with gradient."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    base = torch.full_like(a, reference)
    chosen = (base + a).requires_grad_()
    mismatched = torch.tensor([0.0] * len(a) if kl is None else kl, dtype=torch.float64)
    return Logps(
        policy_chosen=chosen,
        policy_rejected=(2 * base + b).requires_grad_(),
        reference_chosen=base,
        reference_rejected=2 * base,
        policy_kl=mismatched - 5,
        reference_kl=torch.full_like(mismatched, -5.0),
        chosen_nll=-chosen,
        delta=delta,
    )


def mean_loss(name: str, logps: Logps, beta: float | None = None, **params: float | bool) -> Tensor:
    return METHODS[name](logps, beta=beta, **params).losses.mean()


def means(logps: Logps) -> Logps:
    """As if each completion had 100 tokens."""
    return replace(
        logps,
        **{
            name: (getattr(logps, name) - 60) / 100
            for name in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
        },
    )
