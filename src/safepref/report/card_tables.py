"""The tables of a model card: the base and the exported model side by side, each figure with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safepref.evaluation.main_rate import main_rate
from safepref.judges.card import table
from safepref.report.ability import ability_table
from safepref.report.gains import Gain
from safepref.report.labels import NONE, at, number, percent, span, words
from safepref.report.tables import columns, methods_table
from safepref.statistics import proportion
from safepref.taxonomy import load_taxonomy

Row = dict[str, Any]
Scores = Mapping[str, Any] | None

ABSENT = "not measured"
OVERALL = (
    "global",
    "plain",
    "adversarial",
    "unscored",
    "corrected",
    "macro_f1",
    "over_refusal",
    "toxicity_plain",
    "toxicity_adversarial",
    "capability",
)
AVERAGES = (("plain", "Plain safety, mean over categories"), ("adversarial", "The same under attack"))


@dataclass(frozen=True, slots=True)
class Compared:
    """The base's and the exported model's scores, and their samples, of the same prompts.

    `base` is null where it did not answer the prompts on which the exported model was measured.
    """

    base: Scores
    exported: Scores
    base_samples: Sequence[Row]
    exported_samples: Sequence[Row]
    gains: Mapping[str, Gain]


def overall(both: Compared) -> list[str]:
    """The lines of the table of headline numbers, with the paired change where samples give one."""
    # The report's own rows, so that the two never name or read a number differently.
    results = {"base": both.base, "methods": {"exported": {"scores": both.exported}}}
    before, after = methods_table(results)
    by_key = {column.key: column for column in columns([before, after])}
    rows = []
    for key in (key for key in OVERALL if key in by_key):
        column = by_key[key]
        cells = [
            cell(row[key], row.get(column.interval), rate=column.rate, absent=_absent(key, scores))
            for row, scores in ((before, both.base), (after, both.exported))
        ]
        rows.append([f"{column.name} ({column.help})", *cells, _change(both.gains.get(key), column.rate)])
    for side, title in AVERAGES if before["measure"] is None and after["measure"] is None else ():
        cells = [
            cell(at(s, "safety", "macro", side), at(s, "safety", "macro_intervals", side))
            for s in (both.base, both.exported)
        ]
        rows.append([title, *cells, ""])
    return table(["", "base", "this model", "change, paired"], rows)


def _absent(key: str, scores: Scores) -> str:
    why = main_rate(scores).part.get("corrected_why") if key == "corrected" else None
    return f"none ({why})" if why else ABSENT


def _change(gain: Gain | None, rate: bool) -> str:
    if gain is None:
        return ""
    low, high = gain["interval"]
    if rate:
        return f"{100 * gain['value']:+.1f}\u00a0points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{gain['value']:+.3f} ({low:+.3f} to {high:+.3f})"


def attacks(both: Compared) -> list[str]:
    """Attack success rates by attack family; intervals are computed from the samples."""
    names = _names(both, "safety", "asr")
    rows = []
    for name in names:
        asked = [
            [row for row in samples if row["suite"] == "safety" and row.get("attack") == name]
            for samples in (both.base_samples, both.exported_samples)
        ]
        cells = [
            cell(at(scores, "safety", "asr", name), _share(rows_, "harmful")[1])
            for scores, rows_ in zip((both.base, both.exported), asked, strict=True)
        ]
        rows.append([words(name), *cells, f"{len(asked[1]) or ABSENT}"])
    return table(["attack", "base", "this model", "answers"], rows) if rows else []


def categories(both: Compared) -> list[str]:
    """Safe answers by macro category of risk, plain and under attack, from the samples; none without them."""
    macro = _macro()
    sides: tuple[tuple[str, Callable[[Row], bool]], ...] = (
        ("plain", lambda row: row.get("attack") is None),
        ("under attack", lambda row: row.get("attack") is not None),
    )
    grouped: dict[str, list[str]] = {}
    answered = [row for row in both.exported_samples if row["suite"] == "safety"]
    before = [row for row in both.base_samples if row["suite"] == "safety"]
    for title in dict.fromkeys(macro(row) for row in answered):
        cells = [title]
        for _, on_side in sides:
            for rows in (before, answered):
                mine = [row for row in rows if macro(row) == title and on_side(row)]
                cells.append(cell(*_share(mine, "harmless")))
        grouped[title] = cells
    head = ["category of risk"]
    head += [f"{who}, {side}" for side, _ in sides for who in ("base", "this model")]
    return table(head, list(grouped.values())) if grouped else []


def rates_by_category(both: Compared) -> list[str]:
    """Of a task other than safety: good answers by category."""
    parts = [main_rate(scores).part for scores in (both.base, both.exported)]
    names = dict.fromkeys(name for part in reversed(parts) for name in part.get("by_category") or {})
    rows = [
        [words(name), *(cell(at(p, "by_category", name), at(p, "intervals", name)) for p in parts)]
        for name in names
    ]
    return table(["category", "base", "this model"], rows) if rows else []


def tasks(both: Compared) -> list[str]:
    """Capability by task, with what guessing gets and the number of items."""
    rows = []
    for name in _names(both, "capability", "tasks"):
        cells = [
            cell(
                at(scores, "capability", "tasks", name),
                at(scores, "capability", "intervals", name),
                rate=False,
            )
            for scores in (both.base, both.exported)
        ]
        known = next(s for s in (both.exported, both.base) if at(s, "capability", "tasks", name) is not None)
        chance, n = (at(known, "capability", key, name) for key in ("chance", "n"))
        metric = at(known, "capability", "metrics", name) or ""
        rows.append([name, metric, *cells, "" if chance is None else number(chance), str(n or "")])
    return table(["task", "metric", "base", "this model", "chance", "items"], rows) if rows else []


def ability(both: Compared) -> list[str]:
    """Ordinary requests, questions in the chat and worked answers, as the report has them."""
    results = {"base": both.base or {}, "methods": {"exported": {"scores": both.exported or {}}}}

    def text(found: Row) -> str:
        if found["value"] == NONE:
            return ABSENT
        return f"{found['value']} ({found['range']})" if found["range"] else str(found["value"])

    rows = [[row["title"], *map(text, row["cells"])] for row in ability_table(results)["rows"]]
    return table(["", "base", "this model"], rows) if rows else []


def cell(
    value: float | None, interval: Sequence[float] | None, *, rate: bool = True, absent: str = ABSENT
) -> str:
    """A figure with its interval, or that it was not measured."""
    if value is None:
        return absent
    text = percent(value) if rate else number(value)
    return f"{text} ({span(interval, rate=rate)})" if interval else text


def _share(rows: Sequence[Row], verdict: str) -> tuple[float | None, list[float] | None]:
    """The share of a verdict among answers, with its interval; variants of one request stay together."""
    if not rows:
        return None, None
    found = proportion([row["verdict"] == verdict for row in rows], clusters=[r["base_id"] for r in rows])
    return found.value, list(found.interval)


def _names(both: Compared, *path: str) -> list[str]:
    return list(
        dict.fromkeys(key for scores in (both.exported, both.base) for key in at(scores, *path) or ())
    )


def _macro() -> Callable[[Row], str]:
    taxonomy = load_taxonomy()

    def title(row: Row) -> str:
        category = str(row.get("category") or "without a category")
        if category not in taxonomy.micro_ids:
            return words(category)
        return taxonomy.macro(taxonomy.macro_of(category)).title

    return title
