"""Agreement of raters beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from safepref.errors import InputError
from safepref.statistics.base import codes


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance, any number of classes; None where chance agreement is complete.

    It is scikit-learn's, but for None where both say one name throughout, of which that one gives NaN.

    Source: Cohen 1960, doi 10.1177/001316446002000104.
    """
    from sklearn.metrics import cohen_kappa_score

    if len(first) != len(second) or not first:
        raise InputError(f"cohen_kappa: {len(first)} against {len(second)} ratings; both need the same rows")
    names, k = codes([*first, *second], 2 * len(first), "ratings")
    if k == 1:
        return None
    return float(cohen_kappa_score(names[: len(first)], names[len(first) :]))


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Agreement of any number of raters beyond chance, for names without an order and with gaps.

    Args:
        ratings: for each unit what its raters said; None is a missing rating, and units may have any number
            of raters. A unit with fewer than two ratings says nothing about agreement and is left out.

    Returns:
        1 - (observed disagreement) / (disagreement by chance); None where no unit has two ratings, or all
        ratings are the same name, so that chance agrees completely.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", sections C and D. Neither scipy
    nor scikit-learn has it.
    """
    paired = [given for unit in ratings if len(given := [r for r in unit if r is not None]) > 1]
    if not paired:
        return None
    names, k = codes([rating for unit in paired for rating in unit], sum(map(len, paired)), "ratings")
    unit_of = np.repeat(np.arange(len(paired)), [len(unit) for unit in paired])
    counts = np.zeros((len(paired), k))
    np.add.at(counts, (unit_of, names), 1.0)
    size = counts.sum(axis=1)
    total = counts.sum(axis=0)
    n = total.sum()
    observed = ((size**2 - (counts**2).sum(axis=1)) / (size - 1)).sum() / n
    expected = (n**2 - (total**2).sum()) / (n * (n - 1))
    return float(1.0 - observed / expected) if expected > 0 else None
