"""DPO and its two treatments of noisy labels: conservative (biased) and robust (unbiased)."""

from __future__ import annotations

import torch.nn.functional as F

from safepref.methods.logps import Logps, LossOutput, with_rewards


def dpo(logps: Logps, *, beta: float, label_smoothing: float = 0.0) -> LossOutput:
    """Direct preference optimization: -log sigmoid(beta D) (arXiv 2305.18290, Eq. 7).

    With `label_smoothing` e > 0 it is conservative DPO, -(1-e) log sigmoid(beta D) - e log sigmoid(-beta D),
    which has a finite optimum at beta D = ln((1-e)/e).
    """
    logits = beta * logps.margins
    losses = -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)
    return with_rewards(losses, logps, beta)


def robust_dpo(logps: Logps, *, beta: float, label_smoothing: float = 0.1) -> LossOutput:
    """Robust DPO (arXiv 2403.00409): unbiased when labels are flipped with probability e < 1/2.

    [-(1-e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1-2e). Unbounded below for e > 0, by design:
    clamping would bring back the bias that the correction removes.
    """
    logits = beta * logps.margins
    clean = -(1 - label_smoothing) * F.logsigmoid(logits)
    flipped = label_smoothing * F.logsigmoid(-logits)
    return with_rewards((clean + flipped) / (1 - 2 * label_smoothing), logps, beta)
