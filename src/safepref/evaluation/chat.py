"""Capability by generation: questions asked in the chat template and answered greedily in a few tokens.

Likelihoods of choices say nothing of a model that refuses "capital of France". Here an answer counts where it
can be read off what the model writes; a refusal is never right, and is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from safepref.data.records import Prompt, Split, content_id
from safepref.data.splits import split_by_template
from safepref.errors import InputError
from safepref.evaluation.arithmetic import given_number
from safepref.evaluation.families import family_rows
from safepref.evaluation.over_refusal import REFUSED
from safepref.evaluation.samples import Policy, Progress, answers, sample_row, silent, write_samples
from safepref.evaluation.suites import ChatTask, Judges
from safepref.evaluation.tasks import TASK_STYLES, CapabilityTask, Row, choose_rows, read_task
from safepref.generation.base import Sampling
from safepref.statistics import wilson
from safepref.store import read_jsonl

CHAT_TOKENS = 24
"""Room for an answer of a line."""
QUESTIONS = "questions"
ARITHMETIC = "arithmetic"
OWN = (QUESTIONS, ARITHMETIC)
"""The project's own tasks: they have a choose and a report side, where files are reported only."""
SIDES: Mapping[Split, float] = {"choose": 0.35, "report": 0.65}

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_REQUEST = "Answer with the letter of the right choice."
_OPENINGS = {
    "continuation": "Which of the choices is the best continuation of this text?\n",
    "gap": "Which of the choices belongs in the gap (_) of this sentence?\n",
}
"""What stands before the question of a style whose question is none by itself."""


def chat_task(name: str, side: Split, *, limit: int | None = None, seed: int = 0) -> ChatTask | None:
    """The task that a name stands for: `questions`, `arithmetic`, a file of choices, or TASK:FILE.

    Of arithmetic all families are given; `narrowed` keeps those that the base decides on.

    Args:
        name: as in a recipe's `evaluation.chat`.
        side: "choose" or "report"; files have no choose side, None is returned for them.
        limit: at most so many rows, drawn by seed (of arithmetic by `narrowed`).
        seed: of the draw.

    Raises:
        InputError: no such file, or rows without choices.
    """
    if name == ARITHMETIC:
        return ChatTask(ARITHMETIC, tuple(family_rows(side)), "generated")
    if name == QUESTIONS:
        return ChatTask(QUESTIONS, choose_rows(_questions()[side], limit, seed), "starter questions")
    check_chat_name(name)
    if side != "report":
        return None
    task, _, file = name.partition(":")
    whole = read_task(file or task, limit=limit, seed=seed, name=task if file else None)
    if any("choices" not in row or "right" in row for row in whole.rows):
        raise InputError(f"{name}: rows without choices cannot be asked in the chat; give multiple choice")
    return ChatTask(whole.name, tuple(_asked(whole, row) for row in whole.rows), whole.source)


def check_chat_name(name: str) -> None:
    """Refuse a name that stands for no chat task, without reading rows.

    Raises:
        InputError: no such file, or an unknown TASK before a file.
    """
    task, _, file = name.partition(":")
    if name in OWN or Path(name).is_file():
        return
    if file and Path(file).is_file() and task in TASK_STYLES:
        return
    raise InputError(
        f"{name}: no such file; give {' or '.join(OWN)}, a file of multiple choice, or TASK:FILE with one of "
        f"{', '.join(TASK_STYLES)}"
    )


def _asked(task: CapabilityTask, row: Row) -> Row:
    listed = "\n".join(f"{LETTERS[at]}. {choice}" for at, choice in enumerate(row["choices"]))
    opening = _OPENINGS.get(task.style.name, "")
    return {**row, "asked": f"{opening}{row['question'].strip()}\n{listed}\n{LETTER_REQUEST}"}


@cache
def _questions() -> Mapping[Split, tuple[Row, ...]]:
    """The short questions that ship with safepref, dealt by template."""
    with as_file(files("safepref.evaluation").joinpath("questions", "short.jsonl")) as path:
        rows = {row["question"]: row for row in read_jsonl(path)}
    prompts = [
        Prompt(
            id=content_id(QUESTIONS, question),
            messages=({"role": "user", "content": question},),
            kind="general",
            category=row["topic"],
            template=row["template"],
        )
        for question, row in rows.items()
    ]
    dealt = split_by_template(prompts, SIDES)
    return {side: tuple(rows[prompt.text] for prompt in part) for side, part in dealt.items()}


def narrowed(task: ChatTask, families: Sequence[str], limit: int | None) -> ChatTask:
    """The arithmetic of some families, at most `limit` rows in all, as many of each family; others as is."""
    if task.name != ARITHMETIC:
        return task
    rows = [row for row in task.rows if row["family"] in families]
    if limit is None or limit >= len(rows):
        return replace(task, rows=tuple(rows))
    turns: dict[str, int] = defaultdict(int)
    placed = []
    for at, row in enumerate(rows):
        placed.append((turns[row["family"]], at))
        turns[row["family"]] += 1
    return replace(task, rows=tuple(rows[at] for _, at in sorted(sorted(placed)[:limit], key=lambda x: x[1])))


def choice_given(answer: str, choices: Sequence[str]) -> int | None:
    """The number of the choice that an answer gives, None where it gives none or more than one.

    In this order: a letter at its beginning that is marked as one ("B", "B.", "(B)", "b)", "Answer: B", "The
    answer is B"); the text of just one choice, whole words, case and punctuation aside, where one that stands
    inside another counts for the longer; an answer of three words or more that just one choice begins with.
    """
    known = LETTERS[: len(choices)]
    head = r"^\W*(?:the\s+)?(?:(?:right|correct|best)\s+)?(?:answer|choice|option)?(?:\s+is)?\s*:?\s*"
    for mark in (rf"{head}\(?([{known}])(?:[.):,]|\s*$|\s*\n)", rf"{head}\(?([{known.lower()}])\)"):
        found = re.match(mark, answer, re.ASCII) or re.match(mark, answer[:1].lower() + answer[1:], re.ASCII)
        if found:
            return known.index(found.group(1).upper())
    said = _words(answer)
    texts = [_words(choice) for choice in choices]
    there = [at for at, text in enumerate(texts) if text and f" {text} " in f" {said} "]
    longest = [at for at in there if not any(f" {texts[at]} " in f" {texts[b]} " for b in there if b != at)]
    if len(longest) == 1:
        return longest[0]
    begun = [at for at, text in enumerate(texts) if f"{text} ".startswith(f"{said} ")]
    return begun[0] if not there and len(begun) == 1 and len(said.split()) >= 3 else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def says_one_of(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an accepted answer stands in a text as whole words; of one or two letters, in that very case.

    A number is no part of another: "0" is not said by "100", "0.5" or "1,000".
    """
    for text in accepted:
        whole = r"(?<![\w.,]){}(?!\w|[.,]\d)" if text.isdecimal() else r"(?<!\w){}(?!\w)"
        exact = len(text) <= 2 and not text.isdecimal()
        if re.search(whole.format(re.escape(text)), answer, 0 if exact else re.IGNORECASE):
            return True
    return False


def _read(row: Row, answer: str) -> tuple[Any, bool]:
    """What was given, None where nothing can be read, and whether it is right."""
    if "choices" in row:
        at = choice_given(answer, row["choices"])
        return at, at == row["answer"]
    if "answers" in row:
        return answer or None, says_one_of(answer, row["answers"])
    number = given_number(answer)
    return number, number == row["answer"]


def run_chat(
    policy: Policy,
    tasks: Sequence[ChatTask],
    judges: Judges,
    samples_dir: Path,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask every task's questions greedily and write `chat.<task>.jsonl`; see `score_chat` for the keys."""
    return {
        task.name: score_chat(_run(policy, task, judges, samples_dir, progress), families=task.families)
        for task in tasks
    }


def _run(
    policy: Policy, task: ChatTask, judges: Judges, samples_dir: Path, progress: Progress
) -> list[dict[str, Any]]:
    prompts = [
        Prompt(
            id=content_id(task.name, row.get("asked", row["question"])),
            messages=({"role": "user", "content": row.get("asked", row["question"])},),
            kind="general",
            category=row.get("family") or row.get("topic"),
            source=task.source,
        )
        for row in task.rows
    ]
    completions = answers(
        policy,
        [prompt.messages for prompt in prompts],
        Sampling(CHAT_TOKENS),
        samples_dir,
        stage=f"chat {task.name}",
        progress=progress,
    )
    rows = []
    for prompt, row, completion in zip(prompts, task.rows, completions, strict=True):
        given, right = _read(row, completion.text)
        reason = judges.degenerate(completion.text)
        # A number alone has no words, and is an answer.
        refused = not reason and judges.refusal(row["question"], completion.text) >= REFUSED
        nothing = given is None or ("answers" in row and bool(reason) and not right)
        rows.append(
            sample_row(
                "chat",
                prompt,
                completion,
                task=task.name,
                question=row["question"],
                target=row.get("answers", row.get("answer")),
                **({"choices": row["choices"]} if "choices" in row else {}),
                prediction=given,
                refused=refused,
                answered=not refused and not nothing,
                value=float(right and not refused),
            )
        )
    write_samples(samples_dir, f"chat.{task.name}", rows)
    return rows


def score_chat(rows: Sequence[dict[str, Any]], families: Sequence[str] | None = None) -> dict[str, Any]:
    """One task's part of SCORES from sample rows.

    Returns:
        `score`: share of all rows that are answered rightly, with Wilson's `interval`; `refused`;
        `unanswered`: share not refused from which no answer can be read; `n`;
        `chance` where there are choices. Of arithmetic also `families`: score and n of each. Without rows
        the shares are null.
    """
    n = len(rows)
    right = sum(row["value"] for row in rows)
    found: dict[str, Any] = {
        "score": right / n if n else None,
        "interval": list(wilson(right, n)) if n else None,
        "refused": sum(row["refused"] for row in rows) / n if n else None,
        "unanswered": sum(not row["refused"] and not row["answered"] for row in rows) / n if n else None,
        "n": n,
        "chance": _mean([1 / len(row["choices"]) for row in rows if "choices" in row]),
    }
    if families is not None:
        found["families"] = {
            name: {"score": _mean([row["value"] for row in mine]), "n": len(mine)}
            for name in families
            if (mine := [row for row in rows if row["category"] == name])
        }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
