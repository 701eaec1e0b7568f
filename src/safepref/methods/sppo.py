"""SPPO: regression of each log-ratio onto its share of a win or a loss."""

from __future__ import annotations

from safepref.methods.logps import Logps, LossOutput, with_rewards


def sppo(logps: Logps, *, beta: float) -> LossOutput:
    """Self-play preference optimization with hard labels (arXiv 2405.00675, Eq. 4.7, beta = 1/eta).

    (a - 1/(2 beta))^2 + (b + 1/(2 beta))^2, the sum and not the mean of both squares, as in common use.
    """
    target = 1 / (2 * beta)
    losses = (logps.chosen_logratios - target) ** 2 + (logps.rejected_logratios + target) ** 2
    return with_rewards(losses, logps, beta)
