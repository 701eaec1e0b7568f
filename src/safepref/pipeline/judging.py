"""The judges of a run: `select` picks pairs and strengths, `report` makes the printed numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safepref.errors import InputError
from safepref.evaluation import Judges
from safepref.judges.base import Judge
from safepref.judges.cache import CachedJudge
from safepref.judges.degenerate import degenerate
from safepref.judges.refusal import RefusalJudge, is_refusal, refusal_probability
from safepref.judges.registry import is_embedded, load_judge
from safepref.judges.toxicity import ToxicityScorer
from safepref.progress import Advance
from safepref.recipe import JudgeSection
from safepref.statistics import JudgeError


@dataclass(frozen=True, slots=True)
class Bench:
    """Both judges with what they need beside them."""

    select: Judge
    report: Judge
    toxicity: ToxicityScorer

    @classmethod
    def load(cls, section: JudgeSection, advance: Advance = lambda _: None) -> Bench:
        """Load the judges of a recipe; the embedded ones are fitted on first use and cached.

        `advance` is called once for each of the three.
        """
        select = _load(section.select)
        advance(1)
        # One judge for both is loaded once: a guard's weights are large.
        report = select if section.report == section.select else _load(section.report)
        if report is not select and report.name == select.name:
            raise InputError(
                f"judges.select {section.select} and judges.report {section.report}: both are called "
                f"{report.name}, and their verdicts could not be told apart; give two kinds, or one for both"
            )
        advance(1)
        toxicity = ToxicityScorer()
        advance(1)
        return cls(select, report, toxicity)

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
            "report": self.report.card(),
            "refusal": RefusalJudge().card(),
            "toxicity": self.toxicity.card(),
        }

    def _judges(self, main: Judge, second: Judge | None) -> Judges:
        return Judges(
            main=main,
            second=second,
            toxicity=self.toxicity,
            refusal=refusal_probability,
            degenerate=degenerate,
            main_error=_error(main.card()),
        )


def _load(name: str) -> Judge:
    """The judge of that name. A guard's or a server's judgments are kept: the same answers come again with a
    second run, method or strength, and are dear; an embedded judge is quicker than its file would be.
    """
    judge = load_judge(name)
    return judge if is_embedded(name) else CachedJudge(judge)


def refuses(prompt: str, response: str) -> bool:
    """Whether an answer refuses, at the refusal judge's own threshold."""
    return is_refusal(prompt, response)


def _error(card: dict[str, Any]) -> JudgeError | None:
    """The judge's hits on human labels, for the corrected rate; none where its card has none."""
    counts = card.get("hits")
    source = str((card.get("calibration") or {}).get("data") or "")
    return JudgeError(**counts, source=source) if counts else None
