"""The gate file: strict keys, nearest names, what the defaults demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from safepref.comparison.gate import Criterion, Gate, load_gate, read_gate
from safepref.errors import InputError

EXAMPLE = Path(__file__).resolve().parents[2] / "recipes" / "gate.yaml"


def read(tmp_path: Path, text: str) -> Gate:
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    return load_gate(file)


def test_the_example_is_the_default_gate() -> None:
    assert load_gate(EXAMPLE) == Gate() == load_gate()


def test_defaults_stand_where_a_file_says_nothing(tmp_path: Path) -> None:
    gate = read(tmp_path, "over_refusal: {test: non_inferiority, margin: 0.02}\n")
    assert gate.over_refusal == Criterion(test="non_inferiority", margin=0.02)
    assert gate.safety == Gate().safety and gate.alpha == pytest.approx(0.025)
    assert read(tmp_path, "") == Gate()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "null"])
def test_an_empty_file_is_the_default_gate_and_said(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == Gate()
    ((gate, (note,)), none) = read_gate(tmp_path / "gate.yaml"), read_gate()
    assert gate == Gate() and "gate.yaml is empty: the default gate is asked" in note
    assert none == (Gate(), []) and read_gate(EXAMPLE)[1] == []


def test_tasks_take_their_own_criterion_or_that_of_each(tmp_path: Path) -> None:
    gate = read(
        tmp_path,
        "capability:\n  tasks:\n    sums: {test: non_inferiority, margin: 0.1}\n    piqa: null\n",
    )
    found = gate.criteria(["piqa", "mmlu"])
    assert found["capability.piqa"] is None
    assert found["capability.mmlu"] == Criterion(test="non_inferiority", margin=0.05)
    assert found["capability.sums"] == Criterion(test="non_inferiority", margin=0.1)
    assert found["capability"] is None


def test_without_any_task_ability_is_still_demanded() -> None:
    assert Gate().criteria([])["capability"] == Gate().capability.each


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("over_refusl: null", "unknown key over_refusl; did you mean over_refusal?"),
        ("safety: {test: superiority, margn: 0.1}", "safety.margn; did you mean safety.margin?"),
        ("capability: {task: {}}", "did you mean capability.tasks?"),
        (
            "capability: {tasks: {mmlu: {test: superiority, margins: 0}}}",
            "unknown key capability.tasks.mmlu.margins; did you mean capability.tasks.mmlu.margin?",
        ),
        ("safety: {margin: 0.1}", "safety.test"),
        ("safety: {test: better}", "safety.test is 'better'"),
        ("safety: {test: superiority, margin: 5}", "safety.margin is 5: input should be less than 1"),
        ("over_refusal: {test: non_inferiority}", "needs a margin above 0"),
        ("level: 1", "level is 1"),
        ("- a", "expected keys and values, got list"),
        ("[]", "expected keys and values, got list"),
        ("false", "expected keys and values, got bool"),
        ("0", "expected keys and values, got int"),
        ("''", "expected keys and values, got str"),
        ("safety: {test: superiority}\nlevel: 0.9\nsafety: null", "line 3: safety stands twice"),
        ("a: [", "is not YAML"),
        ("{safety: null, over_refusal: null, capability: {each: null}}", "every criterion is null"),
    ],
)
def test_a_bad_gate_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "gate.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_gate(tmp_path / "none.yaml")
