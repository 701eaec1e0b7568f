"""AOT: stochastic dominance of the chosen over the rejected, by optimal transport of sorted batches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from safepref.methods.logps import Logps, LossOutput, with_rewards


def aot(logps: Logps, *, beta: float, label_smoothing: float = 0.0) -> LossOutput:
    """Distributional preference alignment, paired (arXiv 2406.05882).

    u = log pi(y_w) - log pi(y_l) and v, the same under the reference, are each sorted over the
    micro-batch; the loss is -(1-e) log sigmoid(beta (u_(i) - v_(i))) - e log sigmoid(-beta (...)). A loss
    belongs to a rank and not to a pair, so pairs cannot be weighted.
    """
    policy = (logps.policy_chosen - logps.policy_rejected).sort().values
    reference = (logps.reference_chosen - logps.reference_rejected).sort().values
    return with_rewards(_dominance(policy - reference, beta, label_smoothing), logps, beta)


def aot_unpaired(logps: Logps, *, beta: float, label_smoothing: float = 0.0) -> LossOutput:
    """Distributional preference alignment, unpaired (arXiv 2406.05882).

    The log-ratios of the chosen and of the rejected are sorted apart, then compared rank by rank.
    """
    chosen = logps.chosen_logratios.sort().values
    rejected = logps.rejected_logratios.sort().values
    return with_rewards(_dominance(chosen - rejected, beta, label_smoothing), logps, beta)


def _dominance(gap: Tensor, beta: float, smoothing: float) -> Tensor:
    """(B,) logistic violation of first-order dominance at each rank."""
    return -(1 - smoothing) * F.logsigmoid(beta * gap) - smoothing * F.logsigmoid(-beta * gap)
