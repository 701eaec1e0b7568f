"""Judge cards for people: what a judge is, what it was fitted on, what it measures, where it fails.

A card is written from the same dictionaries that judges.json and `safepref judge calibrate --json` hold, so
that the two never differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DASH = "-"

MEASURES = (
    ("roc_auc", "ROC AUC"),
    ("pr_auc", "PR AUC"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("f1", "F1"),
    ("kappa", "Cohen's kappa"),
    ("ece", "calibration error"),
)
ROLES = {
    "report": "makes the printed numbers",
    "select": "selects pairs, strengths and methods",
    "refusal": "scores over-refusal",
    "toxicity": "scores toxicity",
}


def calibration_card(found: Mapping[str, Any]) -> str:
    """One judge on one labelled set, as Markdown.

    Args:
        found: what `judges.calibrate.calibrate` returns.
    """
    lines = [f"# {found['judge']} on {found['data']}", "", *_identity(found.get("card") or {})]
    lines += ["", *_measured([found])]
    lines += ["", *_counts(found)]
    if found.get("raters"):
        lines += ["", "## Raters", "", *_raters(found["raters"])]
    if found.get("by_category"):
        lines += ["", "## By category", "", *_categories(found["by_category"])]
    return "\n".join([*lines, *_weaknesses(found.get("card") or {})]) + "\n"


def judges_card(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """All judges of a run, as Markdown.

    Args:
        cards: by role (report, select, refusal, toxicity) what each judge's `card` returns, as judges.json
            has it.
    """
    lines = [
        "# The judges of this run",
        "",
        "Sensitivity is the share of what people call harmful (of `refusal`: of answers that comply) that",
        "the judge finds, specificity the share of the rest that it passes; in brackets 95 % intervals.",
    ]
    known = [role for role in ROLES if role in cards]
    for role in [*known, *sorted(cards.keys() - ROLES.keys())]:
        card = cards[role]
        lines += ["", f"## {card.get('judge', role)}: {ROLES.get(role, role)}", "", *_identity(card)]
        sets = measured_sets(card)
        lines += ["", *_measured(sets)] if sets else ["", "Not measured on people's labels."]
        lines += _weaknesses(card)
    return "\n".join(lines) + "\n"


def measured_sets(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The labelled sets on a card: the one that corrects rates first, then the others."""
    own = card.get("calibration")
    return [*([own] if own else []), *(card.get("measured") or ())]


def _identity(card: Mapping[str, Any]) -> list[str]:
    shown = (
        ("family", "What it is"),
        ("model", "Model"),
        ("server", "Server"),
        ("trained_on", "Trained on"),
        ("never_trained_on", "Never trained on"),
        ("threshold", "Harmful from a score of"),
        ("fingerprint", "Fingerprint"),
        ("model_sha256", "Weights, SHA-256"),
        ("prompt_sha256", "Prompt, SHA-256"),
    )
    return [f"- {title}: {_text(card[key])}" for key, title in shown if card.get(key) not in (None, "", [])]


def _text(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    return ", ".join(map(str, value))


def _measured(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [title, *(_with_interval(found.get(key), (found.get("intervals") or {}).get(key)) for found in sets)]
        for key, title in MEASURES
        if any(found.get(key) is not None for found in sets)
    ]
    sizes = (
        ("n", "answers"),
        ("positives", "of these harmful by people"),
        ("unscored", "of these not scored"),
        ("human_agreement", "people agree with each other"),
        ("human_alpha", "Krippendorff's alpha of people"),
    )
    for key, title in sizes:
        if any(found.get(key) is not None for found in sets):
            rows.append([title, *(_with_interval(found.get(key), None) for found in sets)])
    return table(["", *(str(found.get("data", DASH)) for found in sets)], rows)


def _counts(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if found.get("left_out"):
        lines.append(f"{found['left_out']} rows were left out: the judge was fitted on them.")
    if found.get("unknown"):
        lines.append(f"{found['unknown']} rows were left out: people do not say whether they are harmful.")
    hits = found.get("hits")
    if hits:
        lines.append(
            f"It found {hits['hits']} of {hits['positives']} harmful answers and passed {hits['rejections']} "
            f"of {hits['negatives']} others."
        )
    return lines


def _raters(found: Mapping[str, Any]) -> list[str]:
    sides = (
        ("rater_against_others", "rater {} against the mean of the others"),
        ("judge_against_rater", "judge against rater {}"),
    )
    rows = [
        [title.format(row["rater"]), str(row["n"])]
        + [_with_interval(row[key], row["intervals"][key]) for key in ("agreement", "kappa")]
        for key, title in sides
        for row in found[key]
    ]
    alphas = (("alpha", "of the raters"), ("alpha_with_judge", "with the judge as one more rater"))
    said = ", ".join(f"{title} {_with_interval(found[key], None)}" for key, title in alphas)
    return [
        f"On the {found['n']} scored answers that several people rated.",
        "",
        *table(["", "answers", "agreement", "Cohen's kappa"], rows),
        "",
        f"Krippendorff's alpha: {said}.",
    ]


def _categories(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for name, row in found.items():
        intervals = row.get("intervals") or {}
        rows.append(
            [name, str(row["n"])]
            + [_with_interval(row.get(key), intervals.get(key)) for key in ("sensitivity", "specificity")]
        )
    return table(["category", "answers", "sensitivity", "specificity"], rows)


def _weaknesses(card: Mapping[str, Any]) -> list[str]:
    lines = card.get("weaknesses") or ()
    return ["", "Where it fails:", "", *(f"- {line}" for line in lines)] if lines else []


def _with_interval(value: Any, interval: Sequence[float] | None) -> str:
    if value is None:
        return DASH
    if isinstance(value, int):
        return f"{value:,}"
    text = f"{value:.3f}"
    return text if interval is None else f"{text} ({interval[0]:.3f} to {interval[1]:.3f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; a bar in a cell is escaped, a line break becomes a space."""

    def line(cells: Sequence[str]) -> str:
        clean = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(clean)} |"

    return [line(head), f"|{'---|' * len(head)}", *(line(row) for row in rows)]
