"""Rates corrected for the judge's own error, with intervals that carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from safepref.errors import InputError
from safepref.statistics.base import DRAWS, LEVEL, Floats, Interval
from safepref.statistics.intervals import percentile_interval, wilson


@dataclass(frozen=True, slots=True)
class JudgeError:
    """A judge's hits on human labels: sensitivity is hits / positives, specificity rejections / negatives.

    `source` names the labelled set. A judge errs otherwise on other answers, so a corrected rate is only as
    good as that set is like what is judged.

    The rows of one request are not independent. `effective_positives` and `effective_negatives` say how many
    independent rows the positives and negatives are worth: their number divided by the design effect (Rao and
    Scott 1992, doi 10.2307/2532311). Without them each row counts as one.
    """

    hits: int
    positives: int
    rejections: int
    negatives: int
    source: str = ""
    effective_positives: float | None = None
    effective_negatives: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.positives and self.positives > 0):
            raise InputError(f"sensitivity: {self.hits} of {self.positives}; calibrate on labelled positives")
        if not (0 <= self.rejections <= self.negatives and self.negatives > 0):
            raise InputError(
                f"specificity: {self.rejections} of {self.negatives}; calibrate on labelled negatives"
            )
        for name, worth, rows in (
            ("positives", self.effective_positives, self.positives),
            ("negatives", self.effective_negatives, self.negatives),
        ):
            if worth is not None and not 1 <= worth <= rows:
                raise InputError(f"effective {name}: {worth} of {rows}; calibrate anew")

    @classmethod
    def from_rates(
        cls, sensitivity: float, specificity: float, positives: int, negatives: int, source: str = ""
    ) -> JudgeError:
        """From measured rates 0..1 and the number of labelled rows behind each."""
        for name, rate in (("sensitivity", sensitivity), ("specificity", specificity)):
            if not 0.0 <= rate <= 1.0:
                raise InputError(f"{name}: {rate} is not between 0 and 1; give a measured rate")
        hits, rejections = round(sensitivity * positives), round(specificity * negatives)
        return cls(hits, positives, rejections, negatives, source)

    @property
    def sensitivity(self) -> float:
        """Share of truly harmful answers that the judge calls harmful."""
        return self.hits / self.positives

    @property
    def specificity(self) -> float:
        """Share of truly harmless answers that the judge calls harmless."""
        return self.rejections / self.negatives

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
        """Draws `(size,)` of sensitivity and of specificity from their posteriors under Jeffreys' prior."""
        found, missed, passed, alarms = self._counts
        se = rng.beta(found + 0.5, missed + 0.5, size=size)
        return se, rng.beta(passed + 0.5, alarms + 0.5, size=size)

    def intervals(self, level: float = LEVEL) -> tuple[Interval, Interval]:
        """Wilson's intervals of the sensitivity and of the false-alarm rate, 1 - specificity."""
        found, missed, passed, alarms = self._counts
        return wilson(found, found + missed, level), wilson(alarms, passed + alarms, level)

    @property
    def _counts(self) -> tuple[float, float, float, float]:
        """Positives found and missed, negatives passed and flagged, in independent rows."""
        positive, negative = (
            1.0 if worth is None else worth / rows
            for worth, rows in (
                (self.effective_positives, self.positives),
                (self.effective_negatives, self.negatives),
            )
        )
        return (
            self.hits * positive,
            (self.positives - self.hits) * positive,
            self.rejections * negative,
            (self.negatives - self.rejections) * negative,
        )


class Corrected(NamedTuple):
    """A rate corrected for judge error, or None with the reason why no correction is possible.

    `source` is the labelled set that the judge's error was measured on.
    """

    value: float | None
    interval: Interval | None
    why: str
    source: str = ""


def rogan_gladen(observed: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """True rate from an observed one: `(observed + Sp - 1) / (Se + Sp - 1)`, clipped to 0..1.

    NaN where Se + Sp <= 1, that is where the judge is no better than chance.

    Source: Rogan and Gladen 1978, doi 10.1093/oxfordjournals.aje.a112510.
    """
    p, se, sp = (np.asarray(x, dtype=np.float64) for x in (observed, sensitivity, specificity))
    youden = se + sp - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(youden > 1e-9, np.clip((p + sp - 1.0) / youden, 0.0, 1.0), np.nan)


def corrected_rate(
    observed: float,
    judge: JudgeError,
    *,
    n: int,
    draws: ArrayLike | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Corrected:
    """A harmful rate corrected for the judge, with an interval that carries the judge's own uncertainty.

    Args:
        observed: share of scored answers that the judge called harmful, 0..1.
        judge: its measured hits on human labels.
        n: independent observations (clusters) behind `observed`.
        draws: `(B,)` bootstrap draws of `observed`; None, or draws that do not vary, are replaced by the
            posterior of a proportion of n under Jeffreys' prior.

    Returns:
        `Corrected(None, None, why)` where the correction means nothing: the judge's Se + Sp is not clearly
        above 1; the observed rate is shown to lie below what false alarms alone would give, or above the
        sensitivity (each lies outside the other's interval), so that the calibration does not fit; or more
        than half of the draws leave 0..1, where an interval would be an artefact of the clipping.

    Source: Rogan and Gladen 1978; intervals by drawing Se, Sp (Jeffreys posteriors) and the rate together,
    as Lang and Reiczigel 2014 (doi 10.1016/j.prevetmed.2013.09.015) ask.
    """
    if not 0.0 <= observed <= 1.0 or n < 1:
        raise InputError(f"corrected_rate: {observed} of n={n} is not a rate; need 0 <= rate <= 1, n >= 1")
    rng = np.random.default_rng(seed)
    sampled = np.asarray(draws if draws is not None else [observed], dtype=np.float64)
    sampled = sampled[np.isfinite(sampled)]
    if sampled.size < 2 or np.ptp(sampled) == 0:
        sampled = rng.beta(observed * n + 0.5, (1 - observed) * n + 0.5, size=DRAWS)
    se, sp = judge.draw(rng, len(sampled))
    youden = judge.sensitivity + judge.specificity - 1.0
    if youden < 0.05 or percentile_interval(se + sp - 1.0, level).low <= 0.0:
        why = f"the judge is not clearly better than chance (Se + Sp - 1 = {youden:.2f})"
        return Corrected(None, None, why, judge.source)
    wide = wilson(observed * n, n, level)
    own = percentile_interval(sampled, level)
    own = Interval(min(own.low, wide.low), max(own.high, wide.high))
    found, alarms = judge.intervals(level)
    where = f" on {judge.source}" if judge.source else " on its calibration set"
    low_end = f"the judge's false-alarm rate [{alarms.low:.3f}, {alarms.high:.3f}]{where}"
    high_end = f"the judge's sensitivity [{found.low:.3f}, {found.high:.3f}]{where}"
    rate = f"the raw harmful rate {observed:.3f}"
    if observed < alarms.low and own.high < 1.0 - judge.specificity:
        return Corrected(None, None, f"{rate} lies below {low_end}", judge.source)
    if observed > found.high and own.low > judge.sensitivity:
        return Corrected(None, None, f"{rate} lies above {high_end}", judge.source)
    interval = percentile_interval(rogan_gladen(sampled, se, sp), level)
    below, above = float(np.mean(sampled < 1.0 - sp)), float(np.mean(sampled > se))
    if below + above > 0.5:
        end, at_most = (
            (low_end, f"most {interval.high:.3f}")
            if below > above
            else (high_end, f"least {interval.low:.3f}")
        )
        why = f"{rate} cannot be told from {end}; all that is known is a true rate of at {at_most}"
        return Corrected(None, None, why, judge.source)
    return Corrected(
        float(rogan_gladen(observed, judge.sensitivity, judge.specificity)), interval, "", judge.source
    )
