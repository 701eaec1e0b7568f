"""The card's figures: what was measured, beside the base, and by which judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.judges.card import judges_card, table
from safepref.report.card_tables import (
    Compared,
    ability,
    attacks,
    categories,
    cell,
    overall,
    rates_by_category,
    tasks,
)
from safepref.report.folder import RunFolder
from safepref.report.labels import at, percent
from safepref.report.public import public_values
from safepref.report.unread import unread_notes

CHOSEN_ON = (
    "**The figures are of the choose split**: prompts by which methods and strengths were compared, so that "
    "they flatter what was chosen. On the report split, which nothing was chosen by, this point was not "
    "measured; `safepref evaluate` measures it."
)
WITHOUT_BASE = " The base was not measured on these prompts."
REPORTED = (
    "On the report split: prompts and attack templates that neither training nor the choice of method and "
    "strength has seen. In brackets 95 % intervals. The paired change compares answers to the same prompts."
)
KEPT = (
    "Asked in the chat template and answered by generation; in brackets the interval or, where the base was "
    "asked too, the paired change with its interval."
)
NOTHING = "**This method was not measured at this strength**; `safepref evaluate` measures it."


def results_section(run: RunFolder, both: Compared, split: str) -> list[str]:
    """Safety never without over-refusal and capability, then attacks, categories, tasks and judges."""
    if both.exported is None:
        said = NOTHING
    else:
        said = REPORTED if split == "report" else CHOSEN_ON + WITHOUT_BASE * (both.base is None)
    parts = ["## Results", said, _lines(overall(both))]
    parts += [*unread_notes("Base", both.base), *unread_notes("This model", both.exported)]
    name = main_rate(run.results["base"]).name
    if name == SAFETY:
        parts += _titled(
            "### Attack success rate by attack",
            "Share of answers that the judge calls harmful, among all to requests in an attack's templates.",
            attacks(both),
        )
        parts += _titled(
            "### Safety by category of risk",
            "Share of answers that the judge calls harmless; all attacks together.",
            categories(both),
        )
    else:
        said = "Share of answers that the judge calls good."
        parts += _titled(f"### {name.capitalize()} by category", said, rates_by_category(both))
    parts += _titled("### Capability by task", "", tasks(both))
    parts += _titled("### Ability kept", KEPT, ability(both))
    return [part for part in [*parts, *_judges(run, both)] if part]


def _titled(title: str, said: str, lines: list[str]) -> list[str]:
    return [title, said, _lines(lines) if lines else "Not measured, or its samples are not kept."]


def _lines(lines: list[str]) -> str:
    return "\n".join(lines)


def _judges(run: RunFolder, both: Compared) -> list[str]:
    cards = {role: public_values(card) for role, card in run.judges.items() if isinstance(card, Mapping)}
    parts = ["### Judges", *_views(both)]
    if not cards:
        return [*parts, "What the judges are was not recorded."]
    # Its first line is a title of its own; what is below it goes two levels down.
    said = judges_card(cards).partition("\n")[2].replace("\n## ", "\n#### ").strip()
    return [*parts, said]


def _views(both: Compared) -> list[str]:
    """Both judges' main rate of the same answers, and how often they agree."""
    known: Any = main_rate(both.exported).part or main_rate(both.base).part
    if not known:
        return []
    name = known.get("measure") or SAFETY
    key, called = ("global", "global safety") if name == SAFETY else ("rate", name)
    points = {"base": main_rate(both.base).part, "this model": main_rate(both.exported).part}
    rows = []
    for title, path in ((known.get("judge", "report"), ()), (at(known, "second", "judge"), ("second",))):
        if title is not None:
            rows.append(
                [
                    f"{called} by `{title}`",
                    *(cell(at(part, *path, key), at(part, *path, "interval")) for part in points.values()),
                ]
            )
    agreed = [at(part, "agreement", "rate") for part in points.values()]
    if any(rate is not None for rate in agreed):
        rows.append(["verdicts on which both agree", *(cell(rate, None) for rate in agreed)])
    corrected = at(known, "corrected", "calibrated_on")
    source = f" (measured on {corrected})" if corrected else ""
    unscored = main_rate(both.exported).part.get("unscored")
    verdicts, counted = ("harmful, harmless", "safe") if name == SAFETY else ("good, bad", "good")
    said = (
        f"An answer is {verdicts} or unscored; unscored never counts as {counted}"
        f"{'' if unscored is None else f' ({percent(unscored)} here)'}. The corrected rate takes the judge's "
        f"sensitivity and specificity{source} into account, with their own uncertainty."
    )
    return [said, _lines(table(["", *points], rows))]
