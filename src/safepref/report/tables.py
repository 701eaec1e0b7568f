"""The table of methods: as rows, as Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.report.labels import NONE, at, method_label, number, percent, point_label, span, words
from safepref.report.unread import unread_notes
from safepref.strength import parse_strength, point_name, strength_text

Row = dict[str, Any]

PUBLISHED: tuple[Row, ...] = (
    {"label": "Published, before", "global": "57.64\u00a0%", "toxicity_adversarial": "> 0.6"},
    {"label": "Published, after", "global": "99.90\u00a0%", "toxicity_adversarial": "< 0.07"},
)
"""The numbers that the reference work's abstract gives."""

PUBLISHED_NOTE = (
    "Published: arXiv 2409.07772, Falcon 11B judged by Llama Guard 3 8B on ALERT and adversarial ALERT: "
    "another model, judge and set of prompts, so not comparable number by number. No figure of it for a "
    "single method is known."
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: where its value stands in a row, and which direction is better."""

    key: str
    title: str
    group: str
    better: Literal["high", "low"]
    name: str
    """The title where no group stands above it."""
    help: str
    rate: bool = True
    """Shown as a percentage; otherwise with three decimals."""

    @property
    def interval(self) -> str:
        """The key of the value's interval in a row."""
        return f"{self.key}_interval"

    def show(self, value: float | None) -> str:
        """The value as text."""
        return percent(value) if self.rate else number(value)


def methods_table(results: Mapping[str, Any]) -> list[Row]:
    """One flat row for the base, for each method at strength 1, and for the recommended point.

    A recommended point at strength 1 is that method's row, marked; at another strength it has its own.

    Returns:
        Rows with `name`, `label`, `method`, `strength`, `role` ("base", "method" or "recommended") and
        `recommended`, and the values of `columns`, each None where it was not measured; rates are 0..1.
    """
    chosen = results.get("recommended") or {}
    rows = [_row("base", "base", None, "base", results["base"], False)]
    for name, entry in results["methods"].items():
        picked = chosen.get("method") == name and chosen.get("strength") == 1
        rows.append(_row(name, name, 1.0, "method", entry["scores"], picked))
    if chosen.get("method") is not None and chosen.get("strength") != 1:
        name, strength = chosen["method"], chosen["strength"]
        point = point_name(name, parse_strength(strength))
        rows.append(_row(point, name, strength, "recommended", chosen["scores"], True))
    return rows


def _row(
    name: str,
    method: str,
    strength: float | str | None,
    role: str,
    scores: Mapping[str, Any] | None,
    picked: bool,
) -> Row:
    main = main_rate(scores)
    safety = main.part
    toxicity = at(scores, "toxicity") or {}
    ability = at(scores, "capability") or {}
    return {
        "name": name,
        "label": point_label(method, strength),
        "method": method,
        "strength": strength,
        "role": role,
        "recommended": picked,
        "measure": None if main.name == SAFETY else main.name,
        "global": main.value,
        "global_interval": main.interval,
        "plain": safety.get("plain"),
        "plain_interval": at(safety, "intervals", "plain"),
        "adversarial": safety.get("adversarial"),
        "adversarial_interval": at(safety, "intervals", "adversarial"),
        **{f"asr.{attack}": rate for attack, rate in (safety.get("asr") or {}).items()},
        "toxicity_plain": toxicity.get("plain"),
        "toxicity_plain_interval": at(toxicity, "intervals", "plain"),
        "toxicity_adversarial": toxicity.get("adversarial"),
        "toxicity_adversarial_interval": at(toxicity, "intervals", "adversarial"),
        "over_refusal": at(scores, "over_refusal", "rate"),
        "over_refusal_interval": at(scores, "over_refusal", "interval"),
        "capability": ability.get("mean"),
        "capability_interval": ability.get("interval"),
        **{f"task.{task}": score for task, score in (ability.get("tasks") or {}).items()},
        "unscored": safety.get("unscored"),
        "corrected": at(safety, "corrected", "value"),
        "corrected_interval": at(safety, "corrected", "interval"),
        "macro_f1": safety.get("macro_f1"),
        "macro_f1_interval": safety.get("macro_f1_interval"),
        "n": safety.get("n"),
    }


def scores_of(results: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """The SCORES behind a row of `methods_table`."""
    if row["role"] == "base":
        scores = results["base"]
    elif row["role"] == "method":
        scores = results["methods"][row["method"]]["scores"]
    else:
        scores = results["recommended"]["scores"]
    return dict(scores or {})


def _strength(row: Row) -> str:
    return strength_text(parse_strength(row["strength"]))


def unread_lines(results: Mapping[str, Any]) -> list[str]:
    """What judges could not read of each point's answers on the report split; see `unread_notes`."""
    return [
        line
        for row in methods_table(results)
        for line in unread_notes(str(row["label"]), scores_of(results, row))
    ]


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of rows from `methods_table`: one for each attack and each task that any row has."""
    attacks, tasks = _names(rows, "asr."), _names(rows, "task.")
    asr, ability = "Attack success rate", "Capability by task"
    measure = next((row["measure"] for row in rows if row.get("measure")), None)
    if measure is not None:
        return _task_columns(rows, measure, tasks)
    return [
        Column("global", "Global", "Safety", "high", "Global safety", "mean of plain and adversarial safety"),
        Column("plain", "Plain", "Safety", "high", "Plain safety", "harmful requests asked as they are"),
        Column("adversarial", "Adversarial", "Safety", "high", "Adversarial safety", "mean over the attacks"),
        Column("over_refusal", "Over-refusal", "Price", "low", "Over-refusal", "look-alikes not answered"),
        Column("capability", "Capability", "Price", "high", "Capability", "mean over the tasks", rate=False),
        Column("toxicity_plain", "Plain", "Toxicity", "low", "Plain toxicity", "mean P(toxic)", rate=False),
        Column(
            "toxicity_adversarial",
            "Adversarial",
            "Toxicity",
            "low",
            "Adversarial toxicity",
            "mean P(toxic) under an instruction to be toxic",
            rate=False,
        ),
        *(Column(f"asr.{a}", words(a), asr, "low", f"ASR {words(a)}", "harmful answers") for a in attacks),
        Column("unscored", "Unscored", "Verdicts", "low", "Unscored", "no verdict; never counted as safe"),
        Column(
            "corrected",
            "Corrected",
            "Verdicts",
            "high",
            "Corrected safety",
            "global safety, corrected for the judge's own error",
        ),
        *(Column(f"task.{t}", words(t), ability, "high", words(t), "score", rate=False) for t in tasks),
    ]


def _task_columns(rows: Sequence[Row], measure: str, tasks: Sequence[str]) -> list[Column]:
    """Of a task other than safety: its own rate first, then what it costs."""
    title = measure.capitalize()
    found = [Column("global", title, "Task", "high", title, "good answers among all")]
    if any(row.get("macro_f1") is not None for row in rows):
        about = "mean over the categories of F1"
        found.append(Column("macro_f1", "Macro-F1", "Task", "high", "Macro-F1", about, rate=False))
    found += [
        Column("unscored", "Unscored", "Task", "low", "Unscored", "no verdict; never counted as good"),
        Column("over_refusal", "Over-refusal", "Price", "low", "Over-refusal", "look-alikes not answered"),
        Column("capability", "Capability", "Price", "high", "Capability", "mean over the tasks", rate=False),
    ]
    if any(row.get("corrected") is not None for row in rows):
        about = f"{measure}, corrected for the judge's own error"
        found.append(Column("corrected", "Corrected", "Verdicts", "high", f"Corrected {measure}", about))
    ability = "Capability by task"
    return found + [
        Column(f"task.{t}", words(t), ability, "high", words(t), "score", rate=False) for t in tasks
    ]


def published(rows: Sequence[Row]) -> Sequence[Row]:
    """The published numbers, which are of safety; none beside another task."""
    return () if any(row.get("measure") for row in rows) else PUBLISHED


def _names(rows: Sequence[Row], prefix: str) -> list[str]:
    return list(
        dict.fromkeys(key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix))
    )


def best_values(rows: Sequence[Row], shown: Sequence[Column]) -> dict[str, float]:
    """The best value of each column among the trained points, where at least two of them differ."""
    found: dict[str, float] = {}
    for column in shown:
        values = [
            row[column.key] for row in rows if row["role"] != "base" and row.get(column.key) is not None
        ]
        if len(set(values)) > 1:
            found[column.key] = max(values) if column.better == "high" else min(values)
    return found


def markdown_table(results: Mapping[str, Any]) -> str:
    """The table of methods as GitHub Markdown, with the published numbers below it; best values are bold."""
    rows = methods_table(results)
    shown = columns(rows)
    best = best_values(rows, shown)
    head = ["Method", *(column.name for column in shown)]
    lines = [_line(head), _line(["---", *["---:"] * len(shown)])]
    for row in rows:
        name = row["label"] + (" (recommended)" if row["recommended"] else "")
        lines.append(_line([name, *(_cell(row, column, best, "**{}**".format) for column in shown)]))
    for row in published(rows):
        lines.append(_line([row["label"], *(row.get(column.key, NONE) for column in shown)]))
    unread = [part for line in unread_lines(results) for part in ("", line)]
    note = ["", PUBLISHED_NOTE] if published(rows) else []
    return "\n".join([*lines, *unread, *note, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cell(row: Row, column: Column, best: Mapping[str, float], mark: Callable[[str], str]) -> str:
    value = row.get(column.key)
    text = column.show(value)
    if value is not None and row["role"] != "base" and value == best.get(column.key):
        text = mark(text)
    interval = row.get(column.interval)
    return f"{text} ({span(interval, rate=column.rate)})" if interval and value is not None else text


TERMINAL = (
    "global",
    "plain",
    "adversarial",
    "toxicity_adversarial",
    "over_refusal",
    "capability",
    "macro_f1",
    "unscored",
)
WIDTH_WITHOUT_TERMINAL = 140


def print_summary(results: Mapping[str, Any]) -> None:
    """Print before and after, the recommendation, and a table of the methods to standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
    rows = methods_table(results)
    shown = [column for column in columns(rows) if column.key in TERMINAL]
    best = best_values(rows, shown)
    table = Table(title=Text(f"{results['model']}, report split"), title_justify="left")
    table.add_column("Method")
    for column in shown:
        table.add_column(Text(column.name), justify="right")
    for row in rows:
        mark = " *" if row["recommended"] else ""
        cells = [Text(row["label"] + mark)]
        for column in shown:
            value, interval = row[column.key], row.get(column.interval)
            winner = value is not None and row["role"] != "base" and value == best.get(column.key)
            text = Text(column.show(value), style="bold green" if winner else "")
            if column.key in ("global", "over_refusal") and interval:
                text.append(f"\n{span(interval, rate=column.rate)}", style="dim")
            cells.append(text)
        table.add_row(*cells)
    console.print(table)
    for line in summary_lines(results):
        console.print(Text(line))


def rate_title(row: Row) -> str:
    """What a row's main rate is called."""
    return str(row["measure"]).capitalize() if row.get("measure") else "Global safety"


def _toxicity(before: Row, after: Row) -> str:
    if before.get("measure"):
        return ""
    old, new = (number(row["toxicity_adversarial"]) for row in (before, after))
    return f", adversarial toxicity {old} -> {new}"


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """Before and after, never safety alone, the recommendation, and what was not read, in sentences."""
    rows = methods_table(results)
    chosen = results.get("recommended") or {}
    why = chosen.get("why") or "no reason was recorded"
    after = next((row for row in rows if row["recommended"]), None)
    if after is None:
        return [f"Nothing is recommended: {why}.", *unread_lines(results)]
    before = rows[0]
    return [
        f"* Recommended: {method_label(after['method'])} at strength {_strength(after)}: {why}.",
        f"{rate_title(before)} {percent(before['global'])} -> {percent(after['global'])}, "
        f"over-refusal {percent(before['over_refusal'])} -> {percent(after['over_refusal'])}, "
        f"capability {number(before['capability'])} -> {number(after['capability'])}"
        f"{_toxicity(before, after)}.",
        *unread_lines(results),
    ]
