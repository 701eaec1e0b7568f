"""Markdown tables of one or several runs for documents: methods by metric, strengths, the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.report.folder import RunFolder, read_run
from safepref.report.gains import Gain, paired_gains
from safepref.report.labels import at, method_label, number, percent, span
from safepref.report.strengths import measures, strength_rows, volume_note, volume_rows
from safepref.report.tables import methods_table, scores_of

Row = dict[str, Any]
Cells = dict[str, str]

RATES = ("safety", "plain", "adversarial", "over_refusal", "unscored", "refused")
OWN = ("questions", "arithmetic")
"""Tasks asked in the chat that have a column."""
TITLES = {
    "over_refusal": "over-refusal",
    "capability": "capability",
    "mathematics": "mathematics",
    "toxicity_adversarial": "adversarial toxicity",
}


def document_tables(folders: Sequence[Path], kind: str) -> str:
    """A table over run folders, as GitHub Markdown.

    Args:
        folders: run folders, each with results.json; with several, a first column names the run.
        kind: "methods" (the report split: base, methods, merges, the recommended point, with the paired
            difference to the base where the samples are there), "strengths" (every point of the choose split)
            or "front" (those on the front, and the hypervolume of each method).

    Raises:
        InputError: another kind, or a folder that is no run's.
    """
    if kind not in TABLES:
        raise InputError(f"--table {kind}: no such table; one of {', '.join(TABLES)}")
    runs = [read_run(folder) for folder in folders]
    return "\n\n".join(TABLES[kind](runs)) + "\n"


def _methods(runs: Sequence[RunFolder]) -> list[str]:
    return [_table([(run.path.name, cells) for run in runs for cells in _method_cells(run)], len(runs) > 1)]


def _method_cells(run: RunFolder) -> list[Cells]:
    gains = paired_gains(run.samples)
    found = []
    for row in methods_table(run.results):
        scores = scores_of(run.results, row)
        mine = gains.get(row["name"], {})
        values = {**row, **measures(scores)}
        found.append(
            {
                "": row["label"] + (" (recommended)" if row["recommended"] else ""),
                _rate(run): _value(values, "safety"),
                "plain": percent(row["plain"]),
                "adversarial": percent(row["adversarial"]),
                "gain, paired": _gain(mine.get("global"), points=True),
                "over-refusal": _value(values, "over_refusal"),
                "change, paired": _gain(mine.get("over_refusal"), points=True),
                "capability": _value(values, "capability"),
                "change of capability, paired": _gain(mine.get("capability"), points=False),
                "mathematics": _value(values, "mathematics"),
                **_ability_cells(scores),
                "adversarial toxicity": _value(values, "toxicity_adversarial"),
                "unscored": percent(row["unscored"]),
            }
        )
    return found


def _ability_cells(scores: Mapping[str, Any]) -> Cells:
    """What the tasks' likelihoods do not show; empty where it was not asked."""
    found = {
        "ordinary requests not answered": _value(
            {
                "refused": at(scores, "ordinary", "refused"),
                "refused_interval": at(scores, "ordinary", "interval"),
            },
            "refused",
        ),
        "perplexity, ratio": _value(
            {
                "ratio": at(scores, "ordinary", "perplexity", "ratio"),
                "ratio_interval": at(scores, "ordinary", "perplexity", "interval"),
            },
            "ratio",
        ),
        "above chance": _value({"mean": at(scores, "capability", "mean_above_chance")}, "mean"),
        "change above chance, paired": _gain(at(scores, "changes", "capability.above_chance"), points=False),
    }
    for task in OWN:
        found[f"{task} in the chat"] = _value(
            {"score": at(scores, "capability", "chat", task, "score")}, "score"
        )
        found[f"change of {task}, paired"] = _gain(at(scores, "changes", f"chat.{task}"), points=False)
    return found


def _strengths(runs: Sequence[RunFolder]) -> list[str]:
    return [_choose_table(runs, lambda row: True)]


def _front(runs: Sequence[RunFolder]) -> list[str]:
    volumes = [
        (run.path.name, {"": row["label"], "hypervolume": number(row["value"], 4)})
        for run in runs
        for row in volume_rows(run.results)
    ]
    notes = dict.fromkeys(volume_note(run.results) for run in runs)
    return [
        _choose_table(runs, lambda row: bool(row["front"] or row["recommended"])),
        f"Hypervolume above {' or '.join(notes)}:",
        _table(volumes, len(runs) > 1),
    ]


def _choose_table(runs: Sequence[RunFolder], shown: Callable[[Row], bool]) -> str:
    lines = []
    for run in runs:
        rows = [row for row in strength_rows(run.results) if row["method"] == "base" or shown(row)]
        gains = paired_gains(run.samples, "choose")
        for row in rows:
            mine = gains.get(row["name"], {})
            cells = {
                "": method_label(row["method"]) + (" (recommended)" if row["recommended"] else ""),
                "strength": row["text"],
                "front": "yes" if row["front"] else "",
            }
            for axis in ("safety", "over_refusal", "capability", "mathematics"):
                cells[_rate(run) if axis == "safety" else TITLES[axis]] = _value(row, axis)
            tried = at(run.results, "methods", row["method"], "choose", row["text"])
            cells |= _ability_cells(tried or at(run.results, "tradeoff", "base") or {})
            cells[f"gain in {main_rate(run.results['base']).name}, paired"] = _gain(
                mine.get("global"), points=True
            )
            cells["change outside the chat, paired"] = _gain(mine.get("capability"), points=False)
            lines.append((run.path.name, cells))
    return _table(lines, len(runs) > 1)


def _rate(run: RunFolder) -> str:
    """The column of the run's main rate."""
    name = main_rate(run.results["base"]).name
    return "global safety" if name == SAFETY else name


def _value(row: Mapping[str, Any], key: str) -> str:
    """A value with its interval in brackets; empty where it was not measured."""
    value, rate = row.get(key), key in RATES
    if value is None:
        return ""
    interval = row.get(f"{key}_interval")
    return (percent(value) if rate else number(value)) + (
        f" ({span(interval, rate=rate)})" if interval else ""
    )


def _gain(gain: Gain | Mapping[str, Any] | None, *, points: bool) -> str:
    if gain is None:
        return ""
    scale, form = (100, "{:+.1f}") if points else (1, "{:+.3f}")
    value, low, high = (form.format(scale * x) for x in (gain["value"], *gain["interval"]))
    return f"{value}{' points' if points else ''} ({low} to {high})"


def _table(lines: Sequence[tuple[str, Cells]], several: bool) -> str:
    """Rows as one table; a column that no row has anything in is left out."""
    if not lines:
        return "Nothing was measured."
    rows = [({"run": name} if several else {}) | cells for name, cells in lines]
    # Runs about different tasks name their rates differently.
    known = dict.fromkeys(key for row in rows for key in row)
    columns = [key for key in known if key == "" or any(row.get(key) for row in rows)]
    head = [columns, ["---" if key in ("", "run") else "---:" for key in columns]]
    body = [[row.get(key, "") for key in columns] for row in rows]
    plain = [[cell.replace("\u00a0", " ").replace("|", "\\|") for cell in line] for line in (*head, *body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in plain)


TABLES: Mapping[str, Callable[[Sequence[RunFolder]], list[str]]] = {
    "methods": _methods,
    "strengths": _strengths,
    "front": _front,
}
"""What can be asked for, by name."""
