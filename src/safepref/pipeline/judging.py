"""The judges of a run: `select` picks pairs and strengths, `report` makes the printed numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safepref.evaluation import Judges
from safepref.judges.base import Judge
from safepref.judges.degenerate import degenerate
from safepref.judges.refusal import is_refusal, refusal_probability
from safepref.judges.registry import load_judge
from safepref.judges.toxicity import ToxicityScorer
from safepref.recipe import JudgeSection
from safepref.statistics import JudgeError


@dataclass(frozen=True, slots=True)
class Bench:
    """Both judges with what they need beside them."""

    select: Judge
    report: Judge
    toxicity: ToxicityScorer

    @classmethod
    def load(cls, section: JudgeSection) -> Bench:
        """Load the judges of a recipe; the embedded ones are fitted on first use and cached."""
        return cls(load_judge(section.select), load_judge(section.report), ToxicityScorer())

    def choosing(self) -> Judges:
        """For the choose split: the selecting judge alone."""
        return self._judges(self.select, None)

    def reporting(self) -> Judges:
        """For the report split: the reporting judge decides, the selecting one stands beside it."""
        return self._judges(self.report, self.select if self.select.name != self.report.name else None)

    def cards(self) -> dict[str, Any]:
        """What each judge is and measures."""
        return {"select": self.select.card(), "report": self.report.card()}

    def _judges(self, main: Judge, second: Judge | None) -> Judges:
        return Judges(
            main=main,
            second=second,
            toxicity=self.toxicity,
            refusal=refusal_probability,
            degenerate=degenerate,
            main_error=_error(main.card()),
        )


def refuses(prompt: str, response: str) -> bool:
    """Whether an answer refuses, at the refusal judge's own threshold."""
    return is_refusal(prompt, response)


def _error(card: dict[str, Any]) -> JudgeError | None:
    """The judge's hits on human labels, for the corrected rate; none where its card has none."""
    counts = card.get("hits")
    return JudgeError(**counts) if counts else None
