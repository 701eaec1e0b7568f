"""Capability tasks by name: lm-eval's own by their ids, a YAML file of one, or local rows scored as one."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from safepref.errors import InputError
from safepref.evaluation.quiet import quiet
from safepref.evaluation.tasks import TASK_STYLES, CapabilityTask, Row, Style, choose_rows, read_task

YAML = (".yaml", ".yml")
METRICS = ("acc_norm", "acc", "exact_match")
"""The figure of a task that has several, the first of these that it has."""


def named_task(name: str, *, limit: int | None = None, seed: int = 0) -> CapabilityTask:
    """The task that a recipe's or a command's name stands for.

    Args:
        name: FILE of rows; TASK:FILE for rows that are scored as that lm-eval task (TASK_STYLES); FILE.yaml,
            one of lm-eval's own task files; or the id of an lm-eval task, whose rows come from the hub.
        limit: at most so many rows, drawn by seed.

    Raises:
        InputError: no such file or task, or one that cannot be loaded or scored.
    """
    task, _, file = name.partition(":")
    if Path(name).is_file() and Path(name).suffix not in YAML:
        return read_task(name, limit=limit, seed=seed)
    if file and not Path(name).is_file():
        if task not in TASK_STYLES:
            raise InputError(
                f"{name}: rows of a file cannot be scored as {task!r}; one of {', '.join(TASK_STYLES)}"
            )
        return read_task(file, limit=limit, seed=seed, name=task)
    if not Path(name).is_file():
        _refuse_absent_file(name)
    return _lm_eval(name, limit, seed)


def _refuse_absent_file(name: str) -> None:
    """A name that reads as a path is no id, and lm-eval's index need not be built to say so."""
    if any(mark in name for mark in "/\\."):
        raise InputError(
            f"{name}: no such file; give a file of benchmark rows, TASK:FILE or an lm-eval task id"
        )


def check_task_name(name: str) -> None:
    """Refuse a name that stands for nothing, without loading any rows.

    Raises:
        InputError: no such file, and no lm-eval task of that id; names the nearest.
    """
    task, _, file = name.partition(":")
    if Path(name).is_file():
        return
    if file:
        if not Path(file).is_file():
            raise InputError(f"{name}: no such file; give TASK:FILE with a file that is there")
        if task not in TASK_STYLES:
            raise InputError(
                f"{name}: rows of a file cannot be scored as {task!r}; one of {', '.join(TASK_STYLES)}"
            )
        return
    _refuse_absent_file(name)
    if name not in task_manager().all_subtasks:
        near = difflib.get_close_matches(name, task_manager().all_subtasks, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"{name}: no such file, and no lm-eval task; {hint}give a file of benchmark rows, TASK:FILE, "
            "an lm-eval task id, or arithmetic"
        )


@lru_cache(maxsize=1)
def task_manager() -> Any:
    """lm-eval's index of its tasks; seconds, so only where an id is named."""
    with quiet():
        from lm_eval.tasks import TaskManager

        return TaskManager()


@lru_cache(maxsize=64)
def loaded_task(name: str) -> Any:
    """The lm-eval task of an id or of a YAML file, with its documents.

    Raises:
        InputError: it cannot be loaded (a network is needed for an id), or is a group.
    """
    try:
        with quiet():
            from lm_eval.tasks import TaskManager

            manager = TaskManager(include_defaults=False) if Path(name).suffix in YAML else task_manager()
            found = manager.load(name)
            tasks = list(found["tasks"].values())
            if len(tasks) == 1:
                _ = len(tasks[0].eval_docs)
    except Exception as error:  # a different kind for each way in which a hub, a file or a rule can fail
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        way = f", or give its rows as {name}:FILE" if name in TASK_STYLES else ""
        raise InputError(
            f"capability task {name}: cannot be loaded by lm-eval ({reason}); check the name and the "
            f"network{way}"
        ) from error
    if len(tasks) != 1:
        some = ", ".join(found["tasks"]) if len(tasks) < 6 else ", ".join([*list(found["tasks"])[:5], "…"])
        raise InputError(f"capability task {name}: is a group of {len(tasks)}; name its members ({some})")
    return tasks[0]


def _lm_eval(name: str, limit: int | None, seed: int) -> CapabilityTask:
    built = loaded_task(name)
    if built.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood", "generate_until"):
        raise InputError(f"capability task {name}: {built.OUTPUT_TYPE} gives no score in 0..1; name another")
    known = list(built.aggregation())
    metric = next((m for m in METRICS if m in known), known[0] if len(known) == 1 else None)
    if metric is None or not built.higher_is_better().get(metric, True):
        raise InputError(
            f"capability task {name}: of its metrics {', '.join(known)} none is one of {', '.join(METRICS)}"
        )
    documents = range(len(built.eval_docs))
    rows = [_row(built, at) for at in choose_numbers(documents, limit, seed)]
    title = str(built.config.task)
    style = Style("lm_eval", "lm_eval", metric, like=title)
    return CapabilityTask(title, style, tuple(rows), source=name)


def choose_numbers(numbers: range, limit: int | None, seed: int) -> list[int]:
    """Which documents are asked, by the rule for rows of a file."""
    return [row["doc"] for row in choose_rows([{"doc": n} for n in numbers], limit, seed)]


def _row(built: Any, at: int) -> Row:
    doc = built.eval_docs[at]
    text, target = built.doc_to_text(doc), built.doc_to_target(doc)
    row: Row = {"question": str(text), "answer": str(target), "doc": at}
    if built.OUTPUT_TYPE == "multiple_choice":
        choices = built.doc_to_choice(doc)
        # Of a task with several contexts (Winogrande) the text is the number of the right one.
        row["choices"] = [str(choice) for choice in choices]
        if isinstance(text, int | np.integer):
            row["question"] = str(choices[int(text)])
    return row
