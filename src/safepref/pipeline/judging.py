"""The judges of a run: `select` picks pairs and strengths, `report` makes the printed numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
from safepref.store import read_json

COUNTS = {"hits", "positives", "rejections", "negatives"}
"""What a calibration counted on people's labels."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Both judges with what they need beside them."""

    select: Judge
    report: Judge
    toxicity: ToxicityScorer
    calibration: dict[str, Any] | None = None
    """What the user measured of the report judge; None takes what stands on its card."""

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
        own = section.calibration
        return cls(select, report, toxicity, None if own is None else calibration_of(report, own))

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
            "refusal": RefusalJudge().card(),
            "toxicity": self.toxicity.card(),
        }

    def _report_card(self) -> dict[str, Any]:
        card = self.report.card()
        if self.calibration is None:
            return card
        found = {key: value for key, value in self.calibration.items() if key not in ("card", "hits")}
        return {**card, "calibration": found, "hits": self.calibration["hits"]}

    def _judges(self, main: Judge, second: Judge | None) -> Judges:
        return Judges(
            main=main,
            second=second,
            toxicity=self.toxicity,
            refusal=refusal_probability,
            degenerate=degenerate,
            main_error=_error(self._report_card() if main is self.report else main.card()),
        )


def read_calibration(path: str | Path) -> dict[str, Any]:
    """A file that `safepref judge calibrate --json` wrote.

    Raises:
        InputError: no such file, or one without what a correction needs.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; write it with `safepref judge calibrate --json {file}`")
    found = read_json(file)
    hits = found.get("hits") if isinstance(found, dict) else None
    whole = isinstance(hits, dict) and set(hits) == COUNTS and all(type(n) is int for n in hits.values())
    if not whole:
        raise InputError(
            f"{file}: no calibration (its `hits` are {hits!r}); write it with `safepref judge calibrate`"
        )
    try:
        JudgeError(**hits)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return dict(found)


def calibration_of(judge: Judge, path: str | Path) -> dict[str, Any]:
    """The calibration in a file, if it is this judge's.

    Raises:
        InputError: another judge's, or another version's of it: its errors say nothing about this one.
    """
    found = read_calibration(path)
    if found.get("judge") != judge.name:
        raise InputError(
            f"judges.calibration {path}: measured judge {found.get('judge')!r}, but judges.report is "
            f"{judge.name!r}; calibrate that one"
        )
    then, now = found.get("card") or {}, judge.card()
    for key in ("fingerprint", "model_sha256", "prompt_sha256", "threshold"):
        if then.get(key) != now.get(key):
            raise InputError(
                f"judges.calibration {path}: judge {judge.name} had {key} {then.get(key)!r} when it was "
                f"measured and has {now.get(key)!r} now; calibrate it anew"
            )
    return found


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
