"""EXO: the reverse KL divergence that RLHF minimises, on pairs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from safepref.methods.logps import Logps, LossOutput, with_rewards


def exo(logps: Logps, *, beta: float, label_smoothing: float = 1e-3) -> LossOutput:
    """Efficient exact optimization, EXO-pref (arXiv 2402.00856, Eq. 16).

    KL( (s, 1-s) || (1-e, e) ) with s = sigmoid(beta D) and e = `label_smoothing` > 0; its optimum is at
    beta D = ln((1-e)/e).
    """
    logits = beta * logps.margins
    chosen = torch.sigmoid(logits) * (F.logsigmoid(logits) - math.log1p(-label_smoothing))
    rejected = torch.sigmoid(-logits) * (F.logsigmoid(-logits) - math.log(label_smoothing))
    return with_rewards(chosen + rejected, logps, beta)
