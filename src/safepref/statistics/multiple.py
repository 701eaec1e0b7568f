"""Several tests at once: p values that hold the chance of any false alarm."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safepref.errors import InputError
from safepref.statistics.base import Floats, floats


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p values `(M,)`, in the order given.

    Rejecting where the adjusted value is at most alpha keeps the chance of one or more false rejections among
    the M hypotheses at alpha, however the tests depend on each other.

    Raises:
        InputError: no p values, or one outside 0..1.

    scipy has only the false discovery rate's (`stats.false_discovery_control`).

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    """
    p = floats(p_values, "p_values")
    if ((p < 0) | (p > 1)).any():
        raise InputError("holm: a p value lies outside 0..1; give the values of single tests")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
