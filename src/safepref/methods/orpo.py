"""ORPO: likelihood of the chosen answer and an odds ratio against the rejected one; no reference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from safepref.errors import InputError
from safepref.methods.logps import Logps, LossOutput


def orpo(logps: Logps, *, beta: float) -> LossOutput:
    """Odds ratio preference optimization: NLL - lambda log sigmoid(log odds ratio) (arXiv 2403.07691).

    lambda = `beta`; odds = p/(1-p) with log p the mean per token, so `logps` holds means. What
    `logps.chosen_nll` covers (the completion, or prompt and completion) is the caller's choice. The
    rewards are beta * log p, since no reference takes part.

    Raises:
        InputError: no `chosen_nll` in `logps`.
    """
    if logps.chosen_nll is None:
        raise InputError("orpo: chosen_nll is missing; give the NLL per token of the chosen answers")
    chosen, rejected = logps.policy_chosen, logps.policy_rejected
    log_odds_ratio = (chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected))
    losses = logps.chosen_nll - beta * F.logsigmoid(log_odds_ratio)
    return LossOutput(losses, beta * chosen.detach(), beta * rejected.detach())


def _log1mexp(logp: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, precise at both ends and finite, gradient included, at x = 0.

    At p = 1 the odds are infinite; the nearest float32 below keeps them finite. Each branch gets an input
    on which it is finite, because `where` lets a NaN gradient of the branch not taken through.
    """
    logp = logp.clamp(max=-torch.finfo(torch.float32).eps)
    near_zero = logp > -math.log(2)
    small = torch.where(near_zero, logp, torch.full_like(logp, -0.5))
    large = torch.where(near_zero, torch.full_like(logp, -1.0), logp)
    return torch.where(near_zero, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
