"""The page's part on a task other than safety: its rate by category, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safepref.evaluation.main_rate import main_rate
from safepref.report.labels import DEFINITIONS, words
from safepref.report.tables import methods_table, scores_of

Row = dict[str, Any]

OF_SAFETY = ("Safety (plain)", "Safety (adversarial)", "Global safety", "ASR", "Toxicity", "Unscored")
"""Definitions that a page on another task has no use for."""


def task_section(results: Mapping[str, Any]) -> Row | None:
    """What the page shows of a task; None where the run is about safety.

    Returns:
        `name`, `title` and `measure` in words; `categories` (id, title, n, None where that is not known);
        `points`: label, recommended, and `cells` by category (rate, interval, f1); and `tables`, one for the
        base and one for the recommended point, else the last: label, `columns` (said), and `rows` (right, and
        for each column the count and its share of the row); none where no categories are named.
    """
    shown = methods_table(results)
    parts = [main_rate(scores_of(results, row)).part for row in shown]
    first = parts[0]
    if "measure" not in first:
        return None
    names = list(dict.fromkeys(name for part in parts for name in part.get("by_category") or {}))
    counts = {name: sum(row.values()) for name, row in (first.get("confusion") or {}).items()}
    picked = next((at for at, row in enumerate(shown) if row["recommended"]), len(shown) - 1)
    pictured = dict.fromkeys((0, picked))
    return {
        "name": first["name"],
        "title": words(first["name"]),
        "measure": first["measure"],
        "categories": [{"id": name, "title": words(name), "n": counts.get(name)} for name in names],
        "points": [
            {
                "label": row["label"],
                "recommended": row["recommended"],
                "cells": [
                    {
                        "rate": (part.get("by_category") or {}).get(name),
                        "interval": (part.get("intervals") or {}).get(name),
                        "f1": (part.get("f1") or {}).get(name),
                    }
                    for name in names
                ],
            }
            for row, part in zip(shown, parts, strict=True)
        ],
        "tables": [
            _table(shown[at]["label"], parts[at]["confusion"]) for at in pictured if "confusion" in parts[at]
        ],
    }


def _table(label: str, confusion: Mapping[str, Mapping[str, int]]) -> Row:
    right = list(confusion)
    others = sorted({said for row in confusion.values() for said in row} - {*right, "unscored"})
    columns = [*right, *others, "unscored"]
    return {
        "label": label,
        "columns": [words(name) for name in columns],
        "rows": [
            {
                "title": words(name),
                "cells": [
                    {
                        "n": row.get(said, 0),
                        "share": row.get(said, 0) / sum(row.values()),
                        "right": said == name,
                    }
                    for said in columns
                ],
            }
            for name, row in confusion.items()
        ],
    }


def definitions(results: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the page's numbers mean."""
    main = main_rate(results["base"])
    if "measure" not in main.part:
        return DEFINITIONS
    own = (
        (
            main.name.capitalize(),
            f"Share of the answers to the prompts of the task {words(main.part['name'])} that the judge "
            "calls good, among all: good, bad and unscored shares add up to 1.",
        ),
        ("Unscored", "Share of answers without a verdict; they never count as good."),
    )
    more = (
        (
            "Macro-F1",
            "The mean over the right categories of F1, the harmonic mean of precision and recall; an answer "
            "without a verdict is a miss for its category. Its interval is of 2,000 bootstrap draws.",
        ),
    )
    kept = tuple((term, text) for term, text in DEFINITIONS if term not in OF_SAFETY)
    return own + (more if "macro_f1" in main.part else ()) + kept
