"""IPO: regression of the margin onto a finite target."""

from __future__ import annotations

from safepref.methods.logps import Logps, LossOutput, with_rewards


def ipo(logps: Logps, *, beta: float) -> LossOutput:
    """Identity preference optimization: (h - 1/(2 tau))^2, tau = `beta` (arXiv 2310.12036, Eq. 17).

    h is the difference of log-ratios with per-token means, so that the target does not depend on length;
    `logps` therefore holds means.
    """
    return with_rewards((logps.margins - 1 / (2 * beta)) ** 2, logps, beta)
