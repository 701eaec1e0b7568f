"""NCA: classify each answer against the reference's, so that the chosen likelihood cannot collapse."""

from __future__ import annotations

import torch.nn.functional as F

from safepref.methods.logps import Logps, LossOutput, with_rewards


def nca(logps: Logps, *, beta: float) -> LossOutput:
    """Noise contrastive alignment for pairs (arXiv 2402.05369).

    -log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l) with r = beta * log-ratio. Its
    gradient in r_w is 3/2 sigmoid(r_w) - 1: the chosen reward settles at ln 2 and cannot fall for good.
    """
    chosen, rejected = beta * logps.chosen_logratios, beta * logps.rejected_logratios
    losses = -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)
    return with_rewards(losses, logps, beta)
