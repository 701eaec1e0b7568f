"""Families of arithmetic, each a whole list of problems, and which of them can show a change.

A family is taken or left whole, by what the base gets right of its choose side: of one that the base nearly
always or hardly ever solves, a change cannot be seen, and picking single problems by the base's answers would
make any other model look worse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from safepref.data.records import Split
from safepref.evaluation.arithmetic import INSTRUCTION, given_number
from safepref.evaluation.samples import Policy, Progress, answers, silent
from safepref.evaluation.tasks import Row
from safepref.generation.base import Sampling
from safepref.store import read_json, write_json

Problem = tuple[str, int]
Problems = Iterator[Problem]

MOST = 90
"""Problems of a family; of one that has more, so many are drawn by hash."""
CHOOSE = 3
"""One problem in so many stands on the choose side."""
LOWEST, HIGHEST = 0.3, 0.9
"""Between these the base's score shows a loss and a gain."""
FAMILY_TOKENS = 24

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo")
_THINGS = ("apples", "books", "coins", "pens", "stamps", "cards", "eggs", "shells")


def _pairs(first: range, second: range) -> Iterator[tuple[int, int]]:
    return ((a, b) for a in first for b in second)


def _add(first: range, second: range) -> Problems:
    return ((f"What is {a} + {b}?", a + b) for a, b in _pairs(first, second))


def _subtract(first: range, second: range) -> Problems:
    return ((f"What is {a} - {b}?", a - b) for a, b in _pairs(first, second) if a > b)


def _times(first: range, second: range) -> Problems:
    return ((f"What is {a} times {b}?", a * b) for a, b in _pairs(first, second))


def _divide() -> Problems:
    return ((f"What is {a * b} divided by {b}?", a) for a, b in _pairs(range(2, 11), range(2, 11)))


def _in_words() -> Problems:
    return ((f"What is {_WORDS[a]} plus {_WORDS[b]}?", a + b) for a, b in _pairs(range(1, 10), range(1, 10)))


def _three() -> Problems:
    small = range(1, 6)
    return ((f"What is {a} + {b} + {c}?", a + b + c) for a, b in _pairs(small, small) for c in small)


def _larger() -> Problems:
    return (
        (f"Which number is larger, {a} or {b}?", max(a, b))
        for a, b in _pairs(range(2, 100), range(2, 100))
        if a != b
    )


def _story(text: str, sign: int) -> Problems:
    """The names and things go with the numbers, so that each sum is told once."""
    for a, b in _pairs(range(4, 14), range(2, 11)):
        if sign > 0 or a > b:
            name, thing = _NAMES[(a + b) % len(_NAMES)], _THINGS[(a + 3 * b) % len(_THINGS)]
            yield text.format(name=name, thing=thing, a=a, b=b), a + sign * b


FAMILIES: Mapping[str, Callable[[], Problems]] = {
    "one_digit_addition": lambda: _add(range(1, 10), range(1, 10)),
    "addition_in_words": _in_words,
    "two_and_one_digit_addition": lambda: _add(range(11, 30), range(2, 10)),
    "two_digit_addition": lambda: _add(range(11, 60), range(11, 40)),
    "tens_addition": lambda: _add(range(10, 100, 10), range(10, 100, 10)),
    "three_addends": _three,
    "one_digit_subtraction": lambda: _subtract(range(2, 10), range(1, 9)),
    "teens_subtraction": lambda: _subtract(range(10, 20), range(1, 10)),
    "two_digit_subtraction": lambda: _subtract(range(30, 90), range(11, 30)),
    "multiplication_table": lambda: _times(range(2, 11), range(2, 11)),
    "twos_fives_and_tens": lambda: (
        (f"What is {a} times {b}?", a * b) for a in range(1, 13) for b in (2, 5, 10)
    ),
    "division_table": _divide,
    "doubling": lambda: ((f"What is double {n}?", 2 * n) for n in range(2, 62)),
    "halving": lambda: ((f"What is half of {n}?", n // 2) for n in range(4, 124, 2)),
    "next_number": lambda: ((f"Which number comes right after {n}?", n + 1) for n in range(5, 100)),
    "number_before": lambda: ((f"Which number comes right before {n}?", n - 1) for n in range(5, 100)),
    "larger_number": _larger,
    "gain_story": lambda: _story(
        "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", 1
    ),
    "loss_story": lambda: _story(
        "{name} has {a} {thing} and gives away {b}. How many {thing} does {name} have left?", -1
    ),
}
"""Every problem of each family, in order."""


@cache
def _dealt(name: str) -> Mapping[Split, tuple[Problem, ...]]:
    """A family's problems on the choose and the report side, by hash of the question."""
    ranked = sorted(dict(FAMILIES[name]()).items(), key=lambda problem: _rank(problem[0]))[:MOST]
    return {
        "choose": tuple(ranked[::CHOOSE]),
        "report": tuple(p for at, p in enumerate(ranked) if at % CHOOSE),
    }


def _rank(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()


def family_rows(side: Split, families: Sequence[str] | None = None) -> list[Row]:
    """The problems of one side, family by family: question, answer (a number as text) and family.

    A problem that two families have is the first one's alone.
    """
    rows: dict[str, Row] = {}
    other: Split = "choose" if side == "report" else "report"
    others = {question for name in FAMILIES for question, _ in _dealt(name)[other]}
    for name in families or FAMILIES:
        for question, answer in _dealt(name)[side]:
            if question not in others:
                text = question + INSTRUCTION
                rows.setdefault(text, {"question": text, "answer": str(answer), "family": name})
    return list(rows.values())


def base_families(
    base: Policy, path: Path, *, rows: Sequence[Row] | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """What the base gets right of each family's choose side, and the families that can show a change.

    Args:
        base: the model without what was trained.
        path: where it is written; read from there if it is there.
        rows: other rows than the whole choose side.
        progress: called with stage, items done and items in all.

    Returns:
        `families`: `score` and `n` of each; `selected`: those with a score of `LOWEST` to `HIGHEST`.
    """
    if path.exists():
        return dict(read_json(path))
    asked = list(rows) if rows is not None else family_rows("choose")
    said = answers(
        base,
        [({"role": "user", "content": row["question"]},) for row in asked],
        Sampling(FAMILY_TOKENS),
        path.with_suffix(""),
        stage="arithmetic families",
        progress=progress,
    )
    right: dict[str, list[bool]] = {}
    for row, answer in zip(asked, said, strict=True):
        right.setdefault(row["family"], []).append(given_number(answer.text) == row["answer"])
    scores = {name: {"score": float(np.mean(hits)), "n": len(hits)} for name, hits in right.items()}
    found = {"families": scores, "selected": selected_families(scores)}
    write_json(path, found)
    return found


def selected_families(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of the families whose `score` lies in LOWEST..HIGHEST, ends included."""
    return [name for name, found in scores.items() if LOWEST <= found["score"] <= HIGHEST]
