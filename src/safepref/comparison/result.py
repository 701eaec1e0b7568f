"""A against B on the same prompts: `safepref compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safepref.comparison.alike import check_judges, check_prompts, setting_notes
from safepref.comparison.decide import Finding, decide, verdict
from safepref.comparison.gate import Gate, read_gate
from safepref.comparison.metrics import CAPABILITY, metric
from safepref.comparison.sides import common_split, read_side, resolve
from safepref.errors import EXIT_DONE, EXIT_NEGATIVE, EXIT_NO_EVIDENCE, InputError
from safepref.evaluation.paired import Gain, measured_values, paired_gain
from safepref.statistics import DRAWS
from safepref.store import write_json

SCHEMA = 1

EXIT = {"pass": EXIT_DONE, "fail": EXIT_NEGATIVE, "undecided": EXIT_NO_EVIDENCE}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A by a gate: the decision, a finding for each metric, and what a reader must know beside.

    `judge` is None where no safety was measured.
    """

    a: str
    b: str
    split: str
    judge: str | None
    gate: Gate
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def decision(self) -> Literal["pass", "fail", "undecided"]:
        """What the gate says."""
        return verdict(self.findings)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 4 not enough evidence."""
        return EXIT[self.decision]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, the same for equal input."""
        return {
            "schema": SCHEMA,
            "decision": self.decision,
            "exit_code": self.exit_code,
            "a": self.a,
            "b": self.b,
            "split": self.split,
            "judge": self.judge,
            "gate": self.gate.model_dump(mode="json"),
            "metrics": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
        }


def compare(
    a: str | Path,
    b: str | Path,
    gate: Gate | str | Path | None = None,
    *,
    json_path: Path | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare B with A on the prompts that both answered; nothing is generated or judged anew.

    Args:
        a, b: a run folder (its recommended point, else its only method), `RUN:base`, `RUN:METHOD`,
            `RUN:METHOD@STRENGTH`, a file of `safepref evaluate --samples`, or `FILE:MODEL` in it.
        gate: what must hold, a gate file, or None for the default gate.
        json_path: where the result is written; null writes none.
        draws: bootstrap resamples.
        seed: of resamples and permutations.

    Raises:
        InputError: no such samples, other judges, other prompts behind equal ids, no prompt in common, or a
        bad gate file.
    """
    chosen, said = (gate, []) if isinstance(gate, Gate) else read_gate(gate)
    sides = resolve(str(a)), resolve(str(b))
    split = common_split(*sides)
    first, second = (read_side(side, split) for side in sides)
    names = (sides[0].name, sides[1].name)
    judge, notes = check_judges((sides[0], first), (sides[1], second))
    check_prompts(first, second, names)
    notes = [*said, *notes, *setting_notes(*sides)]
    if split == "choose":
        notes.append(
            "choose split: strengths and methods are chosen on these prompts, so a chosen point looks better "
            "here than it is"
        )
    tasks = [*dict.fromkeys(row["task"] for row in (*first, *second) if row["suite"] == "capability")]
    criteria = chosen.criteria(tasks)
    gains = {name: _gain(first, second, name, chosen.level, draws, seed) for name in criteria}
    if not any(gains.values()):
        raise InputError(f"{names[0]} and {names[1]} share no prompts; evaluate both on the same ones")
    notes += _one_sided(first, second, list(criteria), gains)
    findings = tuple(decide(chosen, criteria, gains))
    found = Comparison(*names, split, judge, chosen, findings, tuple(notes))
    if json_path is not None:
        write_json(json_path, found.to_json())
    return found


def _gain(a: Sequence[Row], b: Sequence[Row], name: str, level: float, draws: int, seed: int) -> Gain | None:
    measure = metric(name).measure
    if not measured_values(a, measure).keys() & measured_values(b, measure).keys():
        return None
    return paired_gain(a, b, measure, level=level, seed=seed, draws=draws)


def _one_sided(
    a: Sequence[Row], b: Sequence[Row], names: Sequence[str], gains: dict[str, Gain | None]
) -> list[str]:
    """What only one side has, a sentence for each metric."""
    notes = []
    for name in names:
        if name in ("safety_plain", "safety_adversarial", CAPABILITY):  # parts and means of what is counted
            continue
        what = metric(name)
        gain = gains[name]
        counts = (
            [gain.only_first, gain.only_second]
            if gain is not None
            else [len(measured_values(rows, what.measure)) for rows in (a, b)]
        )
        if any(counts):
            left = "left out of it" if gain is not None else "nothing to compare"
            notes.append(f"{what.title}: {counts[0]} rows only in A, {counts[1]} only in B, {left}")
    return notes
