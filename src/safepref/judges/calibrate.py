"""How far a judge can be trusted: its verdicts against people's labels, with intervals.

Rows that a judge was fitted on are left out before anything is measured. Intervals are 95 % percentile
bootstraps over requests, since the answers to one request are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from safepref.errors import InputError
from safepref.judges.base import Exchange, Judge, Verdict
from safepref.judges.behind_files import DIGESTS
from safepref.judges.labelled import Labelled, request_hashes
from safepref.judges.raters import human_agreement, rater_figures
from safepref.judges.support_rows import load_rows
from safepref.statistics import effective_number, krippendorff_alpha, percentile_interval, wilson

Floats = NDArray[np.float64]
DRAWS = 1000
BINS = 10
"""Equal-width bins of the expected calibration error."""
LONG_ANSWER = 20
"""Words from which an equal answer is taken to be the same row; short refusals are everybody's."""


@runtime_checkable
class Fitted(Protocol):
    """A judge that knows which exchanges it was fitted on."""

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Whether each exchange was among the fitting rows."""
        ...


class Metrics:
    """Weighted metrics of one set of scores and labels; weights are how often a bootstrap drew each row.

    scikit-learn has these metrics too (a test holds them equal), but sorts and checks its input at each call:
    a thousand draws of 2,682 rows take it 21 seconds, and this 0.2, which works out once what it can.
    """

    def __init__(self, labels: Floats, scores: Floats, flagged: Floats) -> None:
        self.labels, self.scores, self.flagged = labels, scores, flagged
        self._levels, self._at = np.unique(scores, return_inverse=True)
        self._bins = np.minimum((scores * BINS).astype(int), BINS - 1)

    def all(self, weights: Floats | None = None) -> dict[str, float]:
        """roc_auc, pr_auc, sensitivity, specificity, f1, kappa and ece; NaN where a class is missing."""
        w = np.ones(len(self.labels)) if weights is None else weights
        positive, negative = w * self.labels, w * (1 - self.labels)
        p, n = positive.sum(), negative.sum()
        size = len(self._levels)
        up, down = (np.bincount(self._at, x, size) for x in (positive, negative))
        tp, fp = (positive * self.flagged).sum(), (negative * self.flagged).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = (up * (np.cumsum(down) - down / 2)).sum() / (p * n)
            # Average precision steps down the levels of the score: precision at each, weighted by recall
            # gained.
            hits, alarms = np.cumsum(up[::-1]), np.cumsum(down[::-1])
            precision = np.where(hits + alarms > 0, hits / np.maximum(hits + alarms, 1e-12), 0.0)
            pr_auc = (up[::-1] * precision).sum() / p
            agree = (tp + n - fp) / (p + n)
            flagged = (tp + fp) / (p + n)
            chance = flagged * p / (p + n) + (1 - flagged) * n / (p + n)
            mass, mean, rate = (np.bincount(self._bins, x, BINS) for x in (w, w * self.scores, positive))
            return {
                "roc_auc": float(auc),
                "pr_auc": float(pr_auc),
                "sensitivity": float(tp / p),
                "specificity": float(1 - fp / n),
                # Without a positive, or a negative, there is nothing to find or to agree on beyond chance.
                "f1": float(2 * tp / (tp + fp + p)) if p > 0 else np.nan,
                "kappa": float((agree - chance) / (1 - chance)) if p > 0 and n > 0 else np.nan,
                "ece": float(np.abs(mean - rate).sum() / mass.sum()),
            }


def draw_weights(groups: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap weights over whole groups, shape (draws, N)."""
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    member = np.asarray([index[group] for group in groups])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(index), np.full(len(index), 1 / len(index)), size=draws)
    return counts[:, member].astype(np.float64)


def measure(
    labels: Floats,
    scores: Floats,
    flagged: Floats,
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics with their intervals; keys of the calibration JSON."""
    metrics = Metrics(labels, scores, flagged)
    sampled = [metrics.all(weights) for weights in draw_weights(groups, draws, seed)]
    values = metrics.all()
    intervals = {}
    for key in values:
        drawn = np.asarray([row[key] for row in sampled])
        usable = np.isfinite(drawn).sum() >= draws / 2
        intervals[key] = list(percentile_interval(drawn)) if usable else None
    found: dict[str, Any] = {key: value if np.isfinite(value) else None for key, value in values.items()}
    return {**found, "intervals": intervals}


def auc_difference(
    labels: Floats, first: Floats, second: Floats, groups: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """ROC AUC of `first` minus that of `second` on the same rows, with its paired bootstrap interval."""
    none_flagged = np.zeros(len(labels))
    # Only the order counts here, and log-odds are as welcome as probabilities: ranks fit either into 0..1.
    a, b = (Metrics(labels, rankdata(s) / (len(s) + 1), none_flagged) for s in (first, second))
    drawn = [a.all(w)["roc_auc"] - b.all(w)["roc_auc"] for w in draw_weights(groups, draws, seed)]
    interval = percentile_interval(drawn)
    return a.all()["roc_auc"] - b.all()["roc_auc"], (interval.low, interval.high)


def _label(judge: Judge, row: Labelled) -> int | None:
    """What people said in the judge's own question: a refusal judge is asked whether the answer complied."""
    if getattr(judge, "target", "harmful") == "refusal" and row.refusal is not None:
        return 1 - row.refusal
    return row.harmful


def calibrate(
    judge: Judge,
    data: str | Path,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a judge on human labels.

    Args:
        judge: any judge.
        data: a built-in set's name (judges/labelled.py) or a JSON lines file.
        draws: bootstrap resamples.
        seed: of the bootstrap.
        progress: called with how many rows are judged, and of how many.

    Returns:
        The calibration JSON of the contract, with `hits` and `effective` (for corrected rates: counts, and
        how many independent rows the positives and negatives are worth), `by_category` (with Wilson
        intervals, since a category has too few rows for a bootstrap), `left_out` (rows the judge was fitted
        on), `unknown` (rows of which people do not say whether they are harmful, left out too), where several
        people answered `human_agreement` (of two of them), `human_alpha` (Krippendorff's, beyond chance) and
        `raters` (raters.py), and `requests`, digests by which it can be told later whether one is evaluated.

    Raises:
        InputError: no rows, no label for this judge's question, or every row was fitted on.
    """
    every = load_rows(data)
    rows = [row for row in every if _label(judge, row) is not None]
    if not rows:
        raise InputError(
            f"--data {data}: no row says whether the answer is harmful; calibrate `refusal` on it"
        )
    seen = (
        judge.fitted_on([row.exchange for row in rows]) if isinstance(judge, Fitted) else [False] * len(rows)
    )
    kept = [row for row, was in zip(rows, seen, strict=True) if not was]
    if not kept:
        raise InputError(f"--data {data}: judge {judge.name} was fitted on all of it; measure on another set")
    judgments = []
    for start in range(0, len(kept), 256):
        judgments += judge.judge([row.exchange for row in kept[start : start + 256]])
        if progress is not None:
            progress(len(judgments), len(kept))
    scored = [i for i, judgment in enumerate(judgments) if judgment.verdict is not Verdict.UNSCORED]
    if not scored:
        raise InputError(f"--data {data}: judge {judge.name} scored none of {len(kept)} rows")
    labels = np.asarray([float(_label(judge, kept[i]) or 0) for i in scored])
    flagged = np.asarray([float(judgments[i].verdict.bad) for i in scored])
    # A judge that gives verdicts only still has an ROC curve, of one point.
    scores = np.asarray(
        [f if (s := judgments[i].score) is None else float(s) for i, f in zip(scored, flagged, strict=True)]
    )
    groups = [kept[i].group for i in scored]
    card = judge.card()
    return {
        "judge": judge.name,
        "trained_on": list(card.get("trained_on", [])),
        "data": str(data),
        "n": len(kept),
        "positives": int(labels.sum()),
        "left_out": len(rows) - len(kept),
        "unknown": len(every) - len(rows),
        "unscored": len(kept) - len(scored),
        **measure(labels, scores, flagged, groups, draws=draws, seed=seed),
        "hits": {
            "hits": int((labels * flagged).sum()),
            "positives": int(labels.sum()),
            "rejections": int(((1 - labels) * (1 - flagged)).sum()),
            "negatives": int((1 - labels).sum()),
        },
        "effective": {
            name: effective_number(
                flagged[of], clusters=[groups[i] for i in np.flatnonzero(of)], draws=draws, seed=seed
            )
            if of.any()
            else None
            for name, of in (("positives", labels == 1), ("negatives", labels == 0))
        },
        "by_category": _by_category([{kept[i].category, *kept[i].facets} for i in scored], labels, flagged),
        "human_agreement": human_agreement(kept),
        "human_alpha": krippendorff_alpha([row.votes for row in kept]),
        "raters": rater_figures([kept[i] for i in scored], flagged, draws=draws, seed=seed),
        DIGESTS: request_hashes(kept),
        "card": card,
    }


def _by_category(
    categories: Sequence[set[str]], labels: Floats, flagged: Floats
) -> dict[str, dict[str, Any]]:
    """Figures for each category and facet; a row counts in all that it bears."""
    found = {}
    for name in sorted(set().union(*categories) - {""}):
        here = np.asarray([name in borne for borne in categories])
        positive, negative = here & (labels == 1), here & (labels == 0)
        rates = {"sensitivity": flagged[positive], "specificity": 1 - flagged[negative]}
        found[name] = {
            "n": int(here.sum()),
            **{key: float(right.mean()) if right.size else None for key, right in rates.items()},
            "intervals": {
                key: list(wilson(float(right.sum()), right.size)) if right.size else None
                for key, right in rates.items()
            },
        }
    return found
