"""A comparison as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safepref.comparison.decide import Finding
from safepref.comparison.metrics import Metric
from safepref.comparison.result import Comparison
from safepref.report.labels import NONE, number, percent

STYLE = {"holds": "green", "violated": "bold red", "undecided": "yellow", "shown": "dim"}
WIDTH_WITHOUT_TERMINAL = 140


def print_comparison(found: Comparison) -> None:
    """Print the table, what a reader must know beside it, and the decision to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
    title = f"A {found.a}, B {found.b}: {found.split} split" + (
        f", judge {found.judge}" if found.judge else ""
    )
    table = Table(title=Text(title), title_justify="left")
    level = f"{100 * found.gate.level:g} %"
    for name in ("Metric", "A", "B", f"B - A ({level})", "must be", "p (Holm)", "prompts", "decision"):
        left = name in ("Metric", "decision")
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=name != "decision")
    for finding in found.findings:
        table.add_row(*(Text(cell, style=_style(finding, cell)) for cell in _cells(finding)))
    console.print(table)
    for line in lines(found):
        console.print(Text(line))


def _style(finding: Finding, cell: str) -> str:
    return STYLE[finding.decision] if finding.decision == "shown" or cell == finding.decision else ""


def _cells(finding: Finding) -> list[str]:
    what, gain = finding.metric, finding.gain
    must, p = _border(finding), _p(finding.p)
    if gain is None:
        return [what.title, NONE, NONE, NONE, must, p, "0", finding.decision]
    show = percent if what.rate else number
    low, high = (_signed(edge, what) for edge in gain.interval)
    rows = gain.evidence.n
    prompts = f"{finding.now}" if rows == finding.now else f"{finding.now} ({rows} rows)"
    return [
        what.title,
        show(gain.evidence.first),
        show(gain.evidence.second),
        f"{_signed(gain.value, what)} ({low} to {high})",
        must,
        p,
        prompts,
        finding.decision if finding.criterion is not None else "not in the gate",
    ]


def _signed(value: float, what: Metric) -> str:
    return f"{100 * value:+.1f}" if what.rate else f"{value:+.3f}"


def _border(finding: Finding) -> str:
    """The criterion as it stands for B - A."""
    if finding.criterion is None:
        return NONE
    border = finding.metric.sign * finding.criterion.border
    sign = ">" if finding.metric.sign > 0 else "<"
    return f"{sign} {_signed(border, finding.metric) if border else '0'}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def lines(found: Comparison) -> list[str]:
    """McNemar's counts, notes, what is undecided, and the decision, in sentences."""
    count = sum(finding.criterion is not None for finding in found.findings)
    out = [
        f"p: one-sided, after Holm over the {count} criteria; {found.gate.alpha:g} decides. Rates and their "
        "differences are in per cent, the others in 0..1."
    ]
    for finding in found.findings:
        test = finding.gain.plain if finding.gain is not None else None
        if test is not None and finding.metric.name in ("safety_plain", "over_refusal"):
            done = "safe" if finding.metric.name == "safety_plain" else "not answered"
            out.append(
                f"{finding.metric.title}, prompt by prompt: {test.only_second} {done} by B alone, "
                f"{test.only_first} by A alone; exact McNemar p {_p(test.p_value)} (two-sided, unadjusted)."
            )
    out += [f"{note[0].upper()}{note[1:]}." for note in found.notes]
    for finding in found.findings:
        if finding.decision == "undecided":
            out.append(f"{finding.metric.title}, {finding.now:,} prompts: {finding.why}.")
    names = {
        kind: ", ".join(f.metric.title for f in found.findings if f.decision == kind)
        for kind in ("violated", "undecided")
    }
    ends = {
        "pass": f"PASS: all {count} criteria are shown to hold.",
        "fail": f"FAIL: shown to be violated: {names['violated']}.",
        "undecided": f"NOT ENOUGH EVIDENCE: neither shown to hold nor to be violated: {names['undecided']}.",
    }
    return [*out, ends[found.decision]]
