"""People against each other, and a judge against them, on the answers that several people rated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref.judges.labelled import Labelled
from safepref.statistics import (
    DRAWS,
    cohen_kappa,
    krippendorff_alpha,
    percentile_interval,
    proportion,
    resampled_means,
)

Floats = NDArray[np.float64]


def human_agreement(rows: Sequence[Labelled]) -> float | None:
    """Share of pairs of people who gave the same answer, over rows that several people labelled."""
    pairs = agree = 0
    for row in rows:
        for i, first in enumerate(row.votes):
            for second in row.votes[:i]:
                pairs += 1
                agree += first == second
    return agree / pairs if pairs else None


def rater_figures(
    rows: Sequence[Labelled], flagged: Floats, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any] | None:
    """Each rater against the others, and the judge against each rater, on the same answers.

    Args:
        rows: answers that the judge scored.
        flagged: `(N,)` 1 where the judge said harmful.
        draws: bootstrap resamples, of whole requests.
        seed: of the bootstrap.

    Returns:
        None where no row has two raters; else `n` (rows with several), `rater_against_others` (a rater
        against the mean of the other raters, at least one half being harmful as it is in the labels) and
        `judge_against_rater`, each a list with `rater`, `n`, `agreement`, `kappa` and `intervals` for each
        place among a row's raters; `alpha`, Krippendorff's of the raters, and `alpha_with_judge`, with the
        judge as one more of them.
    """
    several = [at for at, row in enumerate(rows) if len(row.raters) > 1]
    if not several:
        return None
    others: list[dict[str, Any]] = []
    judge: list[dict[str, Any]] = []
    for place in range(max(len(rows[at].raters) for at in several)):
        rated = [at for at in several if len(rows[at].raters) > place]
        groups = [rows[at].group for at in rated]
        own = np.asarray([float(rows[at].votes[place]) for at in rated])
        rest = [np.delete(rows[at].raters, place).mean() >= 0.5 for at in rated]
        for found, reference in ((others, np.asarray(rest, np.float64)), (judge, flagged[rated])):
            found.append({"rater": place + 1, **_agreement(own, reference, groups, draws, seed)})
    return {
        "n": len(several),
        "rater_against_others": others,
        "judge_against_rater": judge,
        "alpha": krippendorff_alpha([rows[at].votes for at in several]),
        "alpha_with_judge": krippendorff_alpha([(*rows[at].votes, int(flagged[at])) for at in several]),
    }


def _agreement(first: Floats, second: Floats, groups: Sequence[str], draws: int, seed: int) -> dict[str, Any]:
    """Agreement and Cohen's kappa of two 0/1 vectors, with intervals over groups."""
    same = (first == second).astype(np.float64)
    estimate = proportion(same, clusters=groups, draws=draws, seed=seed)
    drawn = resampled_means(np.stack([same, first, second], 1), clusters=groups, draws=draws, seed=seed)[:, 0]
    chance = drawn[:, 1] * drawn[:, 2] + (1 - drawn[:, 1]) * (1 - drawn[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        kappas = np.where(chance < 1 - 1e-12, (drawn[:, 0] - chance) / (1 - chance), np.nan)
    kappa = cohen_kappa(first.tolist(), second.tolist())
    usable = kappa is not None and np.isfinite(kappas).sum() >= draws / 2
    return {
        "n": len(same),
        "agreement": estimate.value,
        "kappa": kappa,
        "intervals": {
            "agreement": list(estimate.interval),
            "kappa": list(percentile_interval(kappas)) if usable else None,
        },
    }
