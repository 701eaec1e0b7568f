"""What the plots show, as plain numbers; the page's script draws them in the reader's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safepref.errors import InputError
from safepref.evaluation.main_rate import main_rate
from safepref.report.labels import at, method_label, point_label, words
from safepref.report.tables import methods_table, scores_of
from safepref.taxonomy import load_taxonomy

Row = dict[str, Any]
PLAIN = "plain"
CURVE_POINTS = 400
"""At most so many steps of a training curve are drawn."""


def points(results: Mapping[str, Any]) -> list[Row]:
    """Every scored point: the report split's, then every strength tried on the choose split.

    Each has `method`, `strength`, `label`, `split`, `role`, and `safety`, `over_refusal`, `capability` with
    `*_interval`, rates 0..1 or None.
    """
    found = []
    for row in methods_table(results):
        split = {"split": "report", "role": row["role"], "recommended": row["recommended"]}
        found.append(_point(row["method"], row["strength"], split, scores_of(results, row)))
    chosen = results.get("recommended") or {}
    for method, entry in results["methods"].items():
        for text, scores in sorted((entry.get("choose") or {}).items(), key=lambda item: float(item[0])):
            strength = float(text)
            picked = chosen.get("method") == method and chosen.get("strength") == strength
            split = {"split": "choose", "role": "method", "recommended": picked}
            found.append(_point(method, strength, split, scores))
    return [point for point in found if point["safety"] is not None]


def _point(method: str, strength: float | None, more: Row, scores: Mapping[str, Any]) -> Row:
    return {
        "method": method,
        "strength": strength,
        "label": point_label(method, strength),
        **more,
        "safety": main_rate(scores).value,
        "safety_interval": main_rate(scores).interval,
        "over_refusal": at(scores, "over_refusal", "rate"),
        "over_refusal_interval": at(scores, "over_refusal", "interval"),
        "capability": at(scores, "capability", "mean"),
        "capability_interval": at(scores, "capability", "interval"),
    }


def front(found: Sequence[Row], key: str, *, low_is_better: bool = False) -> list[int]:
    """Numbers of the points that no other one of the same split beats in safety and `key` at once.

    In order of rising `key`; a point without a value is on no front.
    """
    sign = -1.0 if low_is_better else 1.0

    def beats(a: Row, b: Row) -> bool:
        gain = sign * float(a[key] - b[key])
        safer = float(a["safety"] - b["safety"])
        return gain >= 0 and safer >= 0 and (gain > 0 or safer > 0)

    known = [number for number, point in enumerate(found) if point[key] is not None]
    kept = [
        number
        for number in known
        if not any(
            found[other]["split"] == found[number]["split"] and beats(found[other], found[number])
            for other in known
        )
    ]
    return sorted(kept, key=lambda number: (found[number][key], found[number]["safety"]))


def tradeoff(results: Mapping[str, Any]) -> Row:
    """Both scatter plots: the points, and the front against capability and against over-refusal by split."""
    found = points(results)

    def fronts(key: str, low: bool) -> dict[str, list[int]]:
        kept = front(found, key, low_is_better=low)
        return {split: [n for n in kept if found[n]["split"] == split] for split in ("report", "choose")}

    return {
        "points": found,
        "fronts": {
            "capability": fronts("capability", False),
            "over_refusal": fronts("over_refusal", True),
        },
    }


def heat(results: Mapping[str, Any], samples: Sequence[Row]) -> Row | None:
    """Harmful answers by category and attack for each point of the report split.

    Counted from the samples; where there are none, the scores' own table stands in, which knows safe shares
    only, and `exact` is False: what is shown is then harmful or unscored.

    Returns:
        `categories` (id, title, macro), `columns` (plain first), `exact`, and `points`: name, label and
        `cells`, a list of [category number, column number, harmful, n]. None where no prompt has a category.
    """
    counted: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in samples:
        if row["suite"] == "safety" and row["split"] == "report" and row["category"] is not None:
            cell = counted.setdefault(row["point"], {}).setdefault(
                (row["category"], row["attack"] or PLAIN), [0.0, 0.0]
            )
            cell[0] += row["verdict"] == "harmful"
            cell[1] += 1
    shown = methods_table(results)
    exact = all(row["name"] in counted for row in shown)
    tables = {
        row["name"]: counted[row["name"]] if exact else _unsafe(scores_of(results, row)) for row in shown
    }
    present = {key for table in tables.values() for key in table}
    if not present:
        return None
    categories = _categories({category for category, _ in present})
    columns = [PLAIN] if any(part == PLAIN for _, part in present) else []
    columns += sorted({part for _, part in present} - {PLAIN})
    at_row = {category["id"]: number for number, category in enumerate(categories)}
    return {
        "categories": categories,
        "columns": [{"id": name, "title": words(name)} for name in columns],
        "exact": exact,
        "points": [
            {
                "name": row["name"],
                "label": row["label"],
                "recommended": row["recommended"],
                "cells": [
                    [at_row[category], columns.index(part), harmful, n]
                    for (category, part), (harmful, n) in sorted(tables[row["name"]].items())
                ],
            }
            for row in shown
        ],
    }


def _unsafe(scores: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    table = at(scores, "safety", "by_category_attack") or {}
    return {
        (category, part): [(1 - cell["safe"]) * cell["n"], float(cell["n"])]
        for category, cells in table.items()
        for part, cell in cells.items()
    }


def _categories(names: set[str]) -> list[dict[str, str]]:
    """Titles and macro categories; what the shipped taxonomy does not know stands under its own name."""
    taxonomy = load_taxonomy()
    found = []
    for name in names:
        try:
            micro = taxonomy.micro(name)
            found.append({"id": name, "title": micro.title, "macro": taxonomy.macro(micro.macro).title})
        except InputError:
            found.append({"id": name, "title": words(name), "macro": "Other"})
    return sorted(found, key=lambda row: (row["macro"] == "Other", row["macro"], row["title"], row["id"]))


def curves(logs: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Training curves by method: loss, and for each kind of pair the change of chosen and rejected in nats.

    Returns:
        For each method `steps`, `loss`, and `kinds`: {kind: {"chosen", "rejected"}}, lists as long as `steps`
        with None at steps without that kind; `all` is the mean over the step's pairs.
    """
    return [
        {"method": method, "label": method_label(method), **_curve(rows)}
        for method, rows in logs.items()
        if rows
    ]


def _curve(rows: Sequence[Row]) -> Row:
    stride = -(-len(rows) // CURVE_POINTS)
    kept = [*rows[::stride]]
    if (len(rows) - 1) % stride:
        kept.append(rows[-1])
    kinds = sorted({kind for row in rows for kind in row.get("kinds") or {}})
    sides = ("chosen", "rejected")
    by_kind: dict[str, dict[str, list[float | None]]] = {
        kind: {side: [_short(at(row, "kinds", kind, side)) for row in kept] for side in sides}
        for kind in kinds
    }
    by_kind["all"] = {side: [_mean(row.get("kinds") or {}, side) for row in kept] for side in sides}
    return {
        "steps": [row["step"] for row in kept],
        "loss": [_short(row.get("loss")) for row in kept],
        "kinds": by_kind,
    }


def _mean(kinds: Mapping[str, Mapping[str, float]], side: str) -> float | None:
    total = sum(kind["n"] for kind in kinds.values())
    return _short(sum(kind["n"] * kind[side] for kind in kinds.values()) / total) if total else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def capability(results: Mapping[str, Any]) -> Row | None:
    """Scores by task for each point of the report split; None where no task was measured.

    Returns:
        `tasks` (id, title, metric, chance, n) and `points`: label, role, `scores` and `intervals` by task.
    """
    shown = methods_table(results)
    parts = [at(scores_of(results, row), "capability") or {} for row in shown]
    names = list(dict.fromkeys(task for part in parts for task in part.get("tasks") or {}))
    if not names:
        return None

    def first(key: str, task: str) -> Any:
        return next((part[key][task] for part in parts if task in (part.get(key) or {})), None)

    return {
        "tasks": [
            {
                "id": task,
                "title": words(task),
                "metric": first("metrics", task),
                "chance": first("chance", task),
                "n": first("n", task),
            }
            for task in names
        ],
        "points": [
            {
                "name": row["name"],
                "method": row["method"],
                "label": row["label"],
                "role": row["role"],
                "recommended": row["recommended"],
                "scores": [at(part, "tasks", task) for task in names],
                "intervals": [at(part, "intervals", task) for task in names],
            }
            for row, part in zip(shown, parts, strict=True)
        ],
        "skipped": {task: why for part in parts for task, why in (part.get("skipped") or {}).items()},
    }
