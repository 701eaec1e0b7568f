"""SLiC: a hinge on the margin."""

from __future__ import annotations

import torch

from safepref.errors import InputError
from safepref.methods.logps import Logps, LossOutput, with_rewards


def slic(
    logps: Logps,
    *,
    beta: float,
    reference_free: bool = False,
    margin: float = 1.0,
    nll_weight: float = 0.1,
) -> LossOutput:
    """Sequence likelihood calibration, in the form with a reference or in its first form without one.

    By default the hinge of RSO, max(0, 1 - beta D) (arXiv 2309.06657). With `reference_free`,
    max(0, margin - log pi(y_w) + log pi(y_l)) + nll_weight * NLL(y_w) (arXiv 2305.10425), where
    `beta` only scales the rewards.

    Raises:
        InputError: `reference_free` without `logps.chosen_nll`.
    """
    if not reference_free:
        return with_rewards(torch.relu(1 - beta * logps.margins), logps, beta)
    if logps.chosen_nll is None:
        raise InputError("slic: reference_free needs chosen_nll, the NLL per token of the chosen answers")
    hinge = torch.relu(margin - logps.policy_chosen + logps.policy_rejected)
    return with_rewards(hinge + nll_weight * logps.chosen_nll, logps, beta)
