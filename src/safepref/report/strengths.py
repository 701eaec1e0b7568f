"""Every method, merge and strength tried on the choose split, with the front and the hypervolumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safepref.evaluation.main_rate import main_rate
from safepref.report.labels import at, method_label, point_label
from safepref.strength import mean_strength, parse_strength, strength_json, strength_text
from safepref.tradeoff.front import AXES, Point, capability_of, mathematics_of, pareto
from safepref.tradeoff.hypervolume import axes_of, hypervolumes

Row = dict[str, Any]

WORST = {"safety": 0.0, "over_refusal": 1.0, "capability": 0.0, "mathematics": 0.0}
"""The reference point of results that name none."""


def strength_rows(results: Mapping[str, Any]) -> list[Row]:
    """One row for each point of the choose split, the base first where it was scored there.

    Returns:
        Rows with `name` (as the split's samples have it), `method`, `strength` (number or text, None for the
        base), `label`, `text` (the strength as it is written), `order` (its mean), `front`, `recommended`,
        and `safety` (the main rate of the run's task), `over_refusal`, `capability`, `mathematics` with
        `*_interval`, each None where it was not measured; rates 0..1.
    """
    chosen = results.get("recommended") or {}
    picked = (chosen.get("method"), _text(chosen.get("strength")))
    rows = []
    base = at(results, "tradeoff", "base")
    if base:
        rows.append(_row("base", None, base, {"front": False, "recommended": False}))
    on_front = {(p.method, strength_text(p.strength)) for p in pareto(choose_points(results))}
    for method, text, scores in _tried(results):
        key = (method, text)
        marks = {"front": key in on_front, "recommended": key == picked}
        rows.append(_row(method, text, scores, marks))
    return rows


def choose_points(results: Mapping[str, Any]) -> list[Point]:
    """The points that the choice was made from: those with the main rate and over-refusal."""
    return [
        Point(method, parse_strength(text), scores)
        for method, text, scores in _tried(results)
        if main_rate(scores).value is not None
        and at(scores, "over_refusal", "rate") is not None
        and at(scores, "capability") is not None
    ]


def volume_rows(results: Mapping[str, Any]) -> list[Row]:
    """Hypervolume by method, the largest first: `method`, `label`, `value`; none where nothing was tried."""
    reference = WORST | (at(results, "tradeoff", "reference") or {})
    found = at(results, "tradeoff", "hypervolume")
    volumes = found if found is not None else hypervolumes(choose_points(results), reference)
    rows = [{"method": m, "label": method_label(m), "value": value} for m, value in volumes.items()]
    return sorted(rows, key=lambda row: -row["value"])


def volume_note(results: Mapping[str, Any]) -> str:
    """The reference point in words."""
    reference = WORST | (at(results, "tradeoff", "reference") or {})
    axes = axes_of(choose_points(results))
    names = {"safety": main_rate(results.get("base")).name}
    return ", ".join(f"{names.get(axis, axis).replace('_', '-')} {reference[axis]:g}" for axis in axes)


def _tried(results: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Method, strength and SCORES, by method and rising strength; those by groups of layers come last."""
    return [
        (method, text, scores)
        for method, entry in results["methods"].items()
        for text, scores in sorted((entry.get("choose") or {}).items(), key=lambda item: _order(item[0]))
    ]


def _order(text: str) -> tuple[bool, float, str]:
    value = parse_strength(text)
    return isinstance(value, tuple), mean_strength(value), text


def _text(strength: Any) -> str | None:
    return None if strength is None else strength_text(parse_strength(strength))


def _row(method: str, text: str | None, scores: Mapping[str, Any], marks: Row) -> Row:
    value = None if text is None else parse_strength(text)
    return {
        "name": method if text is None else f"{method}@{text}",  # as samples of this split have it
        "method": method,
        "strength": None if value is None else strength_json(value),
        "text": text or "",
        "order": None if value is None else mean_strength(value),
        "label": point_label(method, text),
        **marks,
        **measures(scores),
        **_ability(scores),
    }


def _ability(scores: Mapping[str, Any]) -> Row:
    """Capability as the choice counts it: with what is asked in the chat."""
    value, interval = capability_of(scores)
    return {"capability": value, "capability_interval": interval}


def measures(scores: Mapping[str, Any]) -> Row:
    """The four axes of SCORES with their intervals, None where they were not measured."""
    main = main_rate(scores)
    sums, sums_interval = mathematics_of(scores)
    return {
        "safety": main.value,
        "safety_interval": main.interval,
        "over_refusal": at(scores, "over_refusal", "rate"),
        "over_refusal_interval": at(scores, "over_refusal", "interval"),
        "capability": at(scores, "capability", "mean"),
        "capability_interval": at(scores, "capability", "interval"),
        "mathematics": sums,
        "mathematics_interval": sums_interval,
    }


def known_axes(rows: Sequence[Row]) -> list[str]:
    """The axes that any row has."""
    return [axis for axis in AXES if any(row[axis] is not None for row in rows)]
