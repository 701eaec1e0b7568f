"""The table of guard models, guards.yaml: what each is asked, what it answers, and how that is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from safepref.judges.base import Verdict

_END = re.compile(r"<\|(?:eot_id|eot|im_end|end_of_text)\|>|</s>|<eos>")
"""What ends a turn, where a server or a decoder leaves it in the text."""


@dataclass(frozen=True, slots=True)
class Question:
    """One policy that a guard is asked about; `code` is empty where a guard has one for everything."""

    code: str
    policy: str


@dataclass(frozen=True, slots=True)
class Category:
    """One of a guard's own categories, and Llama Guard 3's hazards (S1 to S14) that are nearest, in order."""

    code: str
    name: str
    hazards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuardRow:
    """One guard model. Where its texts come from stands in `source`.

    `sign` and `ends`: what a chat template holds, and what its text ends in, that is this guard's.
    `marks`: special tokens without which a tokenizer is another model's.
    `labels`: words before a colon by which the frame names its parts.
    `option`: the chat template's argument that takes a question, its policy or, with a dot, its code.
    `steps`: what the guard writes before its verdict, each text with the answers that it can be followed by.
    `lead`: what it writes last before the verdict, whose words are `safe` and `unsafe`.
    `safe_named`: those of `safe` behind which it may name categories all the same.
    `written`: its whole answer, with groups `verdict` and `categories`; `opens` stands between the two.
    `first_decides`: the first question decides, the others name categories; else any question does both.
    `user_turn`: what a server's own chat template puts around one user's turn.
    """

    name: str
    model_id: str
    source: str
    sign: str
    ends: str
    marks: tuple[str, ...]
    labels: tuple[str, ...]
    template: str | None
    questions: tuple[Question, ...]
    option: str
    generation_prompt: bool
    first_decides: bool
    user_turn: tuple[str, str] | None
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    lead: str
    safe: tuple[str, ...]
    unsafe: tuple[str, ...]
    safe_named: tuple[str, ...]
    written: re.Pattern[str]
    opens: str | None
    categories: tuple[Category, ...]

    @property
    def deciding(self) -> tuple[Question, ...]:
        """The questions whose answers make the verdict."""
        return self.questions[:1] if self.first_decides else self.questions

    def options(self, question: Question) -> dict[str, Any]:
        """Arguments of the guard's own chat template for a question."""
        if not self.option:
            return {}
        outer, _, inner = self.option.partition(".")
        return {outer: {inner: question.code} if inner else question.policy}

    def named(self, unsafe: Sequence[bool]) -> tuple[str, ...]:
        """The codes of the questions that were answered with unsafe, where they name a harm."""
        known = {category.code for category in self.categories}
        asked = zip(self.questions, unsafe, strict=True) if known else ()
        return tuple(question.code for question, yes in asked if yes and question.code in known)

    def hazards(self, codes: tuple[str, ...]) -> tuple[str, ...]:
        """The guard's own codes as S1 to S14, without repeats; one that has no such hazard keeps its code."""
        found = {category.code: category.hazards for category in self.categories}
        return tuple(dict.fromkeys(hazard for code in codes for hazard in (found[code] or (code,))))


def _row(name: str, row: Mapping[str, Any]) -> GuardRow:
    turn = row.get("user_turn")
    return GuardRow(
        name=name,
        model_id=row["model"],
        source=row["source"],
        sign=row["sign"],
        ends=row["ends"],
        marks=tuple(row["marks"]),
        labels=tuple(row["labels"]),
        template=row["template"],
        questions=tuple(
            Question(q.get("code", ""), q["policy"]) for q in row.get("questions", [{"policy": ""}])
        ),
        option=row.get("option", ""),
        generation_prompt=row.get("generation_prompt", False),
        first_decides=row.get("first_decides", False),
        user_turn=(turn[0], turn[1]) if turn else None,
        steps=tuple((text, tuple(answers)) for text, answers in row.get("steps", [])),
        lead=row.get("lead", ""),
        safe=tuple(row["safe"]),
        unsafe=tuple(row["unsafe"]),
        safe_named=tuple(row.get("safe_named", ())),
        written=re.compile(row["written"], re.I | re.S),
        opens=row.get("opens"),
        categories=tuple(
            Category(code, what[0], tuple(what[1:])) for code, what in row.get("categories", {}).items()
        ),
    )


def _load() -> dict[str, GuardRow]:
    text = resources.files("safepref.judges").joinpath("guards.yaml").read_text(encoding="utf-8")
    return {name: _row(name, row) for name, row in yaml.safe_load(text).items()}


GUARDS: dict[str, GuardRow] = _load()


def parse_verdict(text: str, row: GuardRow) -> tuple[Verdict, tuple[str, ...]]:
    """A guard's written answer as verdict and its own codes; anything but its known form is unscored."""
    text = _END.sub("", text).strip()
    found = row.written.fullmatch("\n".join(line.strip() for line in text.splitlines()))
    if found is None:
        return Verdict.UNSCORED, ()
    groups = found.groupdict()
    word, line = groups["verdict"], groups.get("categories")
    none = line is None or line.strip().casefold() == "none"
    codes = () if none else read_codes(str(line), row)
    if codes is None:
        return Verdict.UNSCORED, ()
    if not _is_one_of(word, row.safe):
        return Verdict.HARMFUL, codes
    # A word for safe beside a category contradicts itself, but where the guard means both.
    agrees = none or _is_one_of(word, row.safe_named)
    return (Verdict.HARMLESS if agrees else Verdict.UNSCORED), ()


def read_codes(line: str, row: GuardRow) -> tuple[str, ...] | None:
    """The guard's own codes of a comma-separated line of codes or names, or None where one is not the
    policy's.
    """
    known = {category.name.casefold(): category.code for category in row.categories}
    known |= {category.code.casefold(): category.code for category in row.categories}
    named = [known.get(part.strip().casefold(), "") for part in line.split(",")]
    return tuple(dict.fromkeys(named)) if all(named) else None


def _is_one_of(word: str, words: tuple[str, ...]) -> bool:
    return word.casefold() in {w.strip().casefold() for w in words}
