"""BCO: a binary classifier of good and bad answers whose logit is the reward."""

from __future__ import annotations

import torch.nn.functional as F

from safepref.methods.logps import Logps, LossOutput, with_rewards


def bco(logps: Logps, *, beta: float) -> LossOutput:
    """Binary classifier optimization (arXiv 2404.04656) with reward shift `logps.delta`.

    -log sigmoid(beta a - delta) - log sigmoid(-(beta b - delta)); delta is a running mean of rewards and
    takes no gradient.
    """
    chosen = beta * logps.chosen_logratios - logps.delta
    rejected = beta * logps.rejected_logratios - logps.delta
    return with_rewards(-F.logsigmoid(chosen) - F.logsigmoid(-rejected), logps, beta)
