"""The decision rule: every criterion shown to hold, shown to be violated, or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safepref.comparison.gate import Criterion, Gate
from safepref.comparison.metrics import Metric, metric
from safepref.evaluation.paired import Gain
from safepref.statistics import holm

Decision = Literal["holds", "violated", "undecided", "shown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric of a comparison.

    `p_holds` and `p_violated` are one-sided, after Holm over all criteria of the gate: of "the gain is at
    most the border" and of "it is at least the border". `needed` is the number of prompts that would decide,
    were the difference seen the true one, `towards` what they would show, and `if_equal` the number that
    would show that B is not worse, were both truly alike; `now` is the number there are. `why` says what
    keeps an undecided criterion undecided. A metric without a criterion is only shown.
    """

    metric: Metric
    criterion: Criterion | None
    gain: Gain | None
    decision: Decision
    p_holds: float | None = None
    p_violated: float | None = None
    needed: int | None = None
    towards: Literal["holds", "violated", ""] = ""
    if_equal: int | None = None
    why: str = ""

    @property
    def now(self) -> int:
        """Base prompts behind the metric."""
        return self.gain.evidence.clusters if self.gain is not None else 0

    @property
    def p(self) -> float | None:
        """The adjusted p that the decision rests on: of a violation where that is shown, else of holding."""
        return self.p_violated if self.decision == "violated" else self.p_holds

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; numbers that are not known are null."""
        out: dict[str, Any] = {
            "metric": self.metric.name,
            "better": self.metric.better,
            "criterion": self.criterion.model_dump() if self.criterion is not None else None,
            "decision": self.decision,
            "p_holds": self.p_holds,
            "p_violated": self.p_violated,
            "needed": self.needed,
            "towards": self.towards or None,
            "needed_if_equal": self.if_equal,
            "why": self.why,
        }
        if self.gain is None:
            return out
        evidence, plain = self.gain.evidence, self.gain.plain
        return {
            **out,
            "a": evidence.first,
            "b": evidence.second,
            "difference": evidence.value,
            "interval": list(evidence.interval),
            "rows": evidence.n,
            "prompts": evidence.clusters,
            "effective_rows": evidence.score.n,
            "only_a": self.gain.only_first,
            "only_b": self.gain.only_second,
            "mcnemar": None
            if plain is None
            else {"only_a": plain.only_first, "only_b": plain.only_second, "p_value": plain.p_value},
        }


def decide(
    gate: Gate, criteria: Mapping[str, Criterion | None], gains: Mapping[str, Gain | None]
) -> list[Finding]:
    """Decide every criterion.

    A criterion is shown to hold where its one-sided p, after Holm over all criteria of the gate, is at most
    `gate.alpha` and its interval lies beyond the border; shown to be violated likewise on the other side,
    with a family of its own; else undecided. So the chance that any criterion is wrongly called held is at
    most alpha, and the chance that any is wrongly called violated too.

    Args:
        gate: level, power and the largest share of unpaired prompts.
        criteria: by metric, None for one that is only shown.
        gains: what was measured by metric; None, or no entry, where the sides share no prompts.

    Returns:
        A finding for each metric that has a criterion or was measured, in the order of `criteria`.
    """
    tested = [name for name, criterion in criteria.items() if criterion is not None]
    held = [_p(gains.get(name), criteria[name], metric(name), holds=True, gate=gate) for name in tested]
    broken = [_p(gains.get(name), criteria[name], metric(name), holds=False, gate=gate) for name in tested]
    adjusted = {
        name: (float(up), float(down))
        for name, up, down in zip(
            tested, holm(held) if held else (), holm(broken) if broken else (), strict=True
        )
    }
    found = []
    for name, criterion in criteria.items():
        gain = gains.get(name)
        if criterion is None:
            if gain is not None:
                found.append(Finding(metric(name), None, gain, "shown"))
            continue
        found.append(_finding(metric(name), criterion, gain, *adjusted[name], gate=gate, tests=len(tested)))
    return found


def _p(gain: Gain | None, criterion: Criterion | None, what: Metric, *, holds: bool, gate: Gate) -> float:
    """One-sided p that the criterion holds, or that it is violated; 1 where that cannot be said."""
    if gain is None or criterion is None or unpaired_share(gain) > gate.max_unpaired:
        return 1.0
    border = what.sign * criterion.border
    above = holds == (what.sign > 0)
    return gain.evidence.p_above(border) if above else gain.evidence.p_below(border)


def _finding(
    what: Metric,
    criterion: Criterion,
    gain: Gain | None,
    p_holds: float,
    p_violated: float,
    *,
    gate: Gate,
    tests: int,
) -> Finding:
    if gain is None:
        why = "not measured on both sides"
        return Finding(what, criterion, None, "undecided", p_holds, p_violated, why=why)
    if unpaired_share(gain) > gate.max_unpaired:
        why = (
            f"{unpaired_share(gain):.0%} of the prompts have a value on one side only, more than "
            f"max_unpaired {gate.max_unpaired:g}"
        )
        return Finding(what, criterion, gain, "undecided", p_holds, p_violated, why=why)
    border = what.sign * criterion.border
    low, high = (edge - border for edge in gain.interval)
    beyond, short = (low > 0, high < 0) if what.sign > 0 else (high < 0, low > 0)
    if p_holds <= gate.alpha and beyond:
        return Finding(what, criterion, gain, "holds", p_holds, p_violated)
    if p_violated <= gate.alpha and short:
        return Finding(what, criterion, gain, "violated", p_holds, p_violated)
    alpha = gate.alpha / tests
    needed = gain.evidence.clusters_needed(border, alpha, gate.power)
    if_equal = gain.evidence.clusters_needed(border, alpha, gate.power, if_equal=True)
    ahead = what.sign * (gain.value - border) > 0
    if needed is None:
        why = "the difference seen lies on the border, where no number decides"
    else:
        shown = "holds" if ahead else "is violated"
        why = f"about {_rounded(needed)} would show that it {shown}, were this the true difference"
    if if_equal is not None:
        why += f"; {_rounded(if_equal)} that it holds, were there none"
    towards: Literal["holds", "violated", ""] = "" if needed is None else "holds" if ahead else "violated"
    return Finding(what, criterion, gain, "undecided", p_holds, p_violated, needed, towards, if_equal, why)


def _rounded(count: int) -> str:
    """A number of prompts upwards to two digits; more would pretend to be exact."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"


def unpaired_share(gain: Gain) -> float:
    """Share of the prompts of either side that only one side has a value of."""
    return gain.unpaired / (gain.n + gain.unpaired)


def verdict(findings: Sequence[Finding]) -> Literal["pass", "fail", "undecided"]:
    """Fail where any criterion is shown to be violated, pass where all are shown to hold, else undecided."""
    decisions = {finding.decision for finding in findings} - {"shown"}
    if "violated" in decisions:
        return "fail"
    return "pass" if decisions == {"holds"} else "undecided"
