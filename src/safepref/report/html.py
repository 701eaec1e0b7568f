"""report.html: one page with everything in it that needs no network, no server and no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from safepref.data.contamination import summary_line
from safepref.report import labels
from safepref.report.ability import ability_table
from safepref.report.figures import capability, curves, heat, tradeoff
from safepref.report.folder import RunFolder, read_run
from safepref.report.gains import paired_gains
from safepref.report.samples import pack_samples
from safepref.report.sections import (
    MEASURES,
    headline,
    judge_cards,
    judge_views,
    merge_lines,
    recommendation,
    stage_groups,
    training_rows,
)
from safepref.report.strengths import known_axes, strength_rows, volume_note, volume_rows
from safepref.report.tables import (
    PUBLISHED_NOTE,
    best_values,
    columns,
    methods_table,
    published,
    unread_lines,
)
from safepref.report.task import definitions, task_section
from safepref.store import write_text

SCRIPTS = ("page.js", "plots.js", "table.js", "samples.js")


def write_report(run_dir: Path) -> Path:
    """Write report.html of a run folder from results.json and, where they are there, manifest.json,
    judges.json, samples/*.jsonl and logs/METHOD/training_log.jsonl. What is missing is said in the page.

    Args:
        run_dir: the run folder.

    Returns:
        The path of report.html.

    Raises:
        InputError: no results.json, or a file that is not what it should be.
    """
    path = Path(run_dir) / "report.html"
    write_text(path, render(read_run(Path(run_dir))))
    return path


def render(run: RunFolder) -> str:
    """The page's HTML."""
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("safepref.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=labels.percent, plain=labels.plain, number=labels.number, span=labels.span, words=labels.words
    )
    results = run.results
    rows = methods_table(results)
    shown, tried = columns(rows), strength_rows(results)
    gains = paired_gains(run.samples)
    figures = {
        "tradeoff": tradeoff(results),
        "heat": heat(results, run.samples),
        "curves": curves(run.logs),
        "capability": capability(results),
        "samples": pack_samples(run.samples),
        "methods": list(results["methods"]),
        "measure": rows[0]["measure"],
    }
    recipe = run.manifest.get("recipe")
    return environment.get_template("report.html.j2").render(
        run=run,
        results=results,
        rows=rows,
        columns=shown,
        groups=_groups(shown),
        best=best_values(rows, shown),
        gains=gains,
        tried=tried,
        axes=known_axes(tried),
        volumes=volume_rows(results),
        volume_note=volume_note(results),
        unread=unread_lines(results),
        published=published(rows),
        task=task_section(results),
        published_note=PUBLISHED_NOTE,
        ability=ability_table(results),
        headline=headline(rows, gains),
        after=next((row for row in rows if row["recommended"]), None),
        choice=recommendation(results, run.manifest),
        figures=figures,
        training=training_rows(results),
        merges=merge_lines(results),
        judges=judge_cards(run.judges),
        measures=MEASURES,
        views=judge_views(results),
        stages=stage_groups(run.manifest),
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "",
        contamination=summary_line(found) if (found := results.get("contamination")) else "",
        definitions=definitions(results),
        dash=labels.NONE,
        css=Markup(_text("report.css")),
        scripts=Markup("\n".join(_text(name) for name in SCRIPTS)),
        plotly=Markup(get_plotlyjs()),
        data=Markup(script_json(figures)),
    )


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _text(name: str) -> str:
    return files("safepref.report").joinpath("templates", name).read_text(encoding="utf-8")


def _groups(shown: Sequence[Any]) -> list[tuple[str, int]]:
    """Titles of neighbouring columns' groups and how many columns each spans."""
    found: list[tuple[str, int]] = []
    for column in shown:
        if found and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found
