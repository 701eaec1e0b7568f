"""The judges of a run: `select` picks pairs and strengths, `report` makes the printed numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.evaluation import Judges
from safepref.judges.base import Judge
from safepref.judges.behind_files import DIGESTS
from safepref.judges.cache import Reusing, load_cached, said_reuse
from safepref.judges.degenerate import degenerate
from safepref.judges.measured import calibration_of, error_of
from safepref.judges.refusal import THRESHOLD, RefusalJudge, refusal_probability
from safepref.judges.refusal_target import TargetRefusalJudge
from safepref.judges.toxicity import ToxicityScorer
from safepref.judges.toxicity_cache import CachedToxicity, load_cached_toxicity
from safepref.judges.toxicity_models import EMBEDDED
from safepref.progress import Advance
from safepref.recipe import JudgeSection
from safepref.statistics import JudgeError


@dataclass(frozen=True, slots=True)
class Bench:
    """Both judges with what they need beside them."""

    select: Judge
    report: Judge
    toxicity: ToxicityScorer | CachedToxicity
    refusal: RefusalJudge | TargetRefusalJudge
    calibration: dict[str, Any] | None = None
    """What the user measured of the report judge; None takes what stands on its card."""

    @classmethod
    def load(cls, section: JudgeSection, advance: Advance = lambda _: None) -> Bench:
        """Load the judges of a recipe; the embedded ones are fitted on first use and cached.

        `advance` is called once for each of the three.
        """
        select = load_cached(section.select)
        advance(1)
        # One judge for both is loaded once: a guard's weights are large.
        report = select if section.report == section.select else load_cached(section.report)
        if report is not select and report.name == select.name:
            raise InputError(
                f"judges.select {section.select} and judges.report {section.report}: both are called "
                f"{report.name}, and their verdicts could not be told apart; give two kinds, or one for both"
            )
        advance(1)
        embedded = section.toxicity == EMBEDDED
        toxicity = ToxicityScorer() if embedded else load_cached_toxicity(section.toxicity)
        advance(1)
        refusal = TargetRefusalJudge(Path(section.refusal)) if section.refusal else RefusalJudge()
        own = None if section.calibration is None else calibration_of(report, section.calibration)
        return cls(select, report, toxicity, refusal, own)

    def choosing(self) -> Judges:
        """For the choose split: the selecting judge alone."""
        return self._judges(self.select, None)

    def reporting(self) -> Judges:
        """For the report split: the reporting judge decides, the selecting one stands beside it."""
        return self._judges(self.report, self.select if self.select.name != self.report.name else None)

    def cards(self) -> dict[str, Any]:
        """What each judge is and measures."""
        return {
            "select": self.select.card(),
            "report": self._report_card(),
            "refusal": self.refusal.card(),
            "toxicity": self.toxicity.card(),
        }

    def _report_card(self) -> dict[str, Any]:
        card = self.report.card()
        if self.calibration is None:
            return card
        kept_apart = ("card", "hits", DIGESTS)
        found = {key: value for key, value in self.calibration.items() if key not in kept_apart}
        return {**card, "calibration": found, "hits": self.calibration["hits"]}

    def reuse(self) -> dict[str, Any]:
        """Of each judge whose judgments are kept: how many were asked for, and how many of them re-used."""
        return {judge.name: judge.reuse() for judge in self._cached()}

    def say_reuse(self) -> list[str]:
        """The same, a line for each judge that was asked anything."""
        return said_reuse(*self._cached())

    def _cached(self) -> list[Reusing]:
        every = (self.select, self.report, self.toxicity)
        found = {id(judge): judge for judge in every if isinstance(judge, Reusing)}
        return list(found.values())

    def refuses(self, prompt: str, response: str) -> bool:
        """Whether an answer refuses, at the refusal judge's own threshold."""
        return self.refused(prompt, response) >= THRESHOLD

    def refused(self, prompt: str, response: str) -> float:
        """P(an answer refuses); a target model's own threshold, where one is given, lies at one half."""
        if isinstance(self.refusal, TargetRefusalJudge):
            return self.refusal.probability(prompt, response)
        return refusal_probability(prompt, response)

    def _judges(self, main: Judge, second: Judge | None) -> Judges:
        return Judges(
            main=main,
            second=second,
            toxicity=self.toxicity,
            refusal=self.refused,
            refusal_card=self.refusal.card,
            degenerate=degenerate,
            main_error=_error(self._report_card() if main is self.report else main.card()),
        )


def _error(card: dict[str, Any]) -> JudgeError | None:
    """The judge's hits on human labels, for the corrected rate; none where its card has none."""
    counts = card.get("hits")
    return error_of(counts, card.get("calibration") or {}) if counts else None
