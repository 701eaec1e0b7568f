"""KTO: each answer is judged alone, against a reference point shared by the batch."""

from __future__ import annotations

import torch

from safepref.errors import InputError
from safepref.methods.logps import Logps, LossOutput, with_rewards


def kto(
    logps: Logps, *, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> LossOutput:
    """Kahneman-Tversky optimization (arXiv 2402.01306, Eq. 7-8) on the two answers of each pair.

    z0 = max(0, mean log-ratio on the mismatched pairs), without gradient; the desirable answer costs
    desirable_weight * (1 - sigmoid(beta (a - z0))), the undesirable one undesirable_weight *
    (1 - sigmoid(beta (z0 - b))). A pair's loss is the mean of its two answers', so that the mean over
    pairs is the mean over answers.

    Raises:
        InputError: no mismatched pairs in `logps`.
    """
    if logps.policy_kl is None or logps.reference_kl is None or len(logps.policy_kl) == 0:
        raise InputError("kto: policy_kl and reference_kl are missing; give log-probs of mismatched pairs")
    z0 = (logps.policy_kl - logps.reference_kl).detach().mean().clamp(min=0)
    desirable = 1 - torch.sigmoid(beta * (logps.chosen_logratios - z0))
    undesirable = 1 - torch.sigmoid(beta * (z0 - logps.rejected_logratios))
    losses = (desirable_weight * desirable + undesirable_weight * undesirable) / 2
    return with_rewards(losses, logps, beta)
