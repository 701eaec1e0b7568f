"""Generated arithmetic: questions with one right number, of several families, from a seed.

They are asked in the model's own chat format and answered by generation, because this is where alignment
shows its cost first (arXiv 2409.07772: ability fell, mathematics most), and a refusal is a wrong answer here.
The rows are drawn by seed, and a request that equals one of them is taken out of training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import numpy as np

from safepref.errors import InputError
from safepref.evaluation.tasks import STYLES, CapabilityTask, Row, plain_number

Question = tuple[str, int]
Family = Callable[[np.random.Generator], Question]

INSTRUCTION = " Answer with the number only."

_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas")
_THINGS = ("apples", "books", "coins", "pens", "stamps", "cards", "eggs", "shells")


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _add(rng: np.random.Generator) -> Question:
    a, b = _between(rng, 2, 12), _between(rng, 2, 12)
    return f"What is {a} + {b}?", a + b


def _subtract(rng: np.random.Generator) -> Question:
    b = _between(rng, 1, 8)
    a = _between(rng, b + 1, 18)
    return f"What is {a} - {b}?", a - b


def _multiply(rng: np.random.Generator) -> Question:
    a, b = _between(rng, 2, 10), _between(rng, 2, 10)
    return f"What is {a} times {b}?", a * b


def _gain(rng: np.random.Generator) -> Question:
    a, b = _between(rng, 3, 12), _between(rng, 2, 9)
    name, thing = _pick(rng, _NAMES), _pick(rng, _THINGS)
    return f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", a + b


# The embedded default gets between a third and two thirds of these right, so that a loss and a gain can both
# be seen. Sums of two-digit numbers and word problems with products, of which it gets fewer, are left out.
FAMILIES: Mapping[str, Family] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "gain": _gain,
}


def arithmetic_task(
    count: int,
    seed: int = 0,
    families: tuple[str, ...] = tuple(FAMILIES),
    without: Collection[str] = (),
) -> CapabilityTask:
    """`count` different questions, the families in turn, none of those in `without`.

    Raises:
        InputError: an unknown family, or more questions than the families can give.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise InputError(f"arithmetic: family {unknown[:1]} is not known; choose of {', '.join(FAMILIES)}")
    if count < 1:
        raise InputError(f"arithmetic: {count} questions; give at least 1")
    rng = np.random.default_rng(seed)
    rows: dict[str, Row] = {}
    tries = 0
    while len(rows) < count:
        name = families[tries % len(families)]
        question, answer = FAMILIES[name](rng)
        question += INSTRUCTION
        if question not in without:
            rows.setdefault(question, {"question": question, "answer": str(answer), "family": name})
        tries += 1
        if tries > 50 * count:
            raise InputError(
                f"arithmetic: {count} different questions cannot be made of {', '.join(families)}"
            )
    return CapabilityTask("arithmetic", STYLES["generate"], tuple(rows.values()), source="generated")


def given_number(answer: str) -> str | None:
    """The number that a written answer gives: the last one of the first line that has one.

    Models restate the question ("8 + 8 = 16") and ramble on after the answer, so neither the first nor the
    last number of the whole text will do; GSM8K's "####" mark wins.
    """
    marked = re.findall(r"####\s*(-?[0-9][0-9.,]*)", answer)
    if marked:
        return plain_number(marked[-1])
    for line in answer.splitlines():
        found = re.findall(r"-?(?:\d[\d,]*(?:\.\d+)?)", line)
        if found:
            return plain_number(found[-1])
    return None
