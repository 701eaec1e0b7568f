"""Is ability kept: ordinary requests, questions in the chat, worked answers, and tasks above chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safepref.report.labels import at, number, percent, span, words
from safepref.report.tables import methods_table, scores_of

Row = dict[str, Any]


def ability_table(results: Mapping[str, Any]) -> Row:
    """What was measured of ability beside the tasks' likelihoods, point by point.

    Returns:
        `points`: their labels, the base first; `rows`: each with `title`, `help` and `cells`, one for each
        point: `value` as text, `range` (its interval, or the paired change against the base with its
        interval) and `change` ("better", "worse" or "" where the interval holds 0). No rows where nothing
        was measured.
    """
    points = methods_table(results)
    scores = [scores_of(results, point) for point in points]
    rows = [row for row in _rows(scores) if any(cell["value"] is not None for cell in row["cells"])]
    for row in rows:
        show = percent if row.pop("rate") else number
        for cell in row["cells"]:
            cell["value"] = show(cell["value"])
    return {"points": [point["label"] for point in points], "rows": rows}


def _rows(scores: Sequence[Row]) -> list[Row]:
    found = [
        _row(
            "Ordinary requests not answered",
            "refused, empty or degenerate answers to ordinary requests in the chat template",
            scores,
            ("ordinary", "refused"),
            interval=("ordinary", "interval"),
            change="ordinary",
            better="low",
            rate=True,
        ),
        _row(
            "Perplexity of the base's answers",
            "of the base's own answers to ordinary requests, as a ratio to the base's",
            scores,
            ("ordinary", "perplexity", "ratio"),
            interval=("ordinary", "perplexity", "interval"),
            better="low",
        ),
        _row(
            f"Tasks above chance: {_above(scores)}",
            "mean over the tasks on which the base is above chance by three standard errors",
            scores,
            ("capability", "mean_above_chance"),
            change="capability.above_chance",
        ),
    ]
    for task in _names(scores, "chat"):
        title = f"{words(task)}, asked in the chat"
        place = ("capability", "chat", task)
        found.append(
            _row(
                title,
                "share of all rows answered rightly by generation",
                scores,
                (*place, "score"),
                interval=(*place, "interval"),
                change=f"chat.{task}",
            )
        )
        refused = (*place, "refused")
        found.append(_row(f"{title}: refused", "share", scores, refused, better="low", rate=True))
        nothing = (*place, "unanswered")
        found.append(_row(f"{title}: unanswered", "share", scores, nothing, better="low", rate=True))
    for task in _names(scores, "nats"):
        found.append(
            _row(
                f"{words(task)}, nats a token",
                "of the worked answers, asked in the chat template; lower is better",
                scores,
                ("capability", "nats", task),
                interval=("capability", "nats_intervals", task),
                change=f"nats.{task}",
                better="low",
            )
        )
    return found


def _row(
    title: str,
    help: str,
    scores: Sequence[Row],
    place: tuple[str, ...],
    *,
    interval: tuple[str, ...] = (),
    change: str = "",
    better: str = "high",
    rate: bool = False,
) -> Row:
    """A measure's cells; a point with a paired change shows that in its interval's place."""
    cells = []
    for one in scores:
        paired = at(one, "changes", change) if change else None
        if paired is None:
            limits = at(one, *interval) if interval else None
            cells.append({"value": at(one, *place), "range": span(limits, rate=rate), "change": ""})
            continue
        low, high = paired["interval"]
        side = "" if low <= 0 <= high else "better" if (low > 0) == (better == "high") else "worse"
        cells.append({"value": at(one, *place), "range": _change(paired, rate), "change": side})
    return {"title": title, "help": help, "rate": rate, "cells": cells}


def _change(paired: Mapping[str, Any], rate: bool) -> str:
    scale, form = (100.0, "{:+.1f}") if rate else (1.0, "{:+.3f}")
    value, low, high = (form.format(scale * x) for x in (paired["value"], *paired["interval"]))
    return f"{value} ({low} to {high})"


def _names(scores: Sequence[Row], part: str) -> list[str]:
    return list(dict.fromkeys(name for one in scores for name in at(one, "capability", part) or {}))


def _above(scores: Sequence[Row]) -> str:
    return ", ".join(words(task) for task in at(scores[0], "capability", "above_chance") or ()) or "none"
