"""Progress with time left: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
"""Called with the number of newly finished items."""

QUIET_SECONDS = 10.0
"""Without a terminal, at most one line in this time."""


def duration(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def console() -> Console:
    """Where progress and notes are written: standard error, so that standard output stays for results."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def track(title: str, total: int) -> Iterator[Advance]:
    """Show a task of `total` items while the block runs; call the yielded function with finished counts."""
    if console().is_terminal:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console()) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
        return
    yield _lines(title, total)


def _lines(title: str, total: int) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        # The total may have been an estimate: what goes beyond it is no end, and is no reason for many lines.
        if done != total and now - last < QUIET_SECONDS:
            return
        last = now
        left = (now - start) / done * (total - done) if done else 0.0
        tail = f"{duration(left)} left" if done < total else f"{duration(now - start)}"
        print(f"  {title}: {done}/{max(done, total)}, {tail}", file=sys.stderr, flush=True)

    return advance


class Stage(Protocol):
    """Called with a stage's name, how many of its items are done, and how many it has."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show it."""
        ...


@contextmanager
def progress_by_stage() -> Iterator[Stage]:
    """One bar after the other for work that names its stages; call the yielded function as `Stage` says."""
    bar: dict[str, Any] = {"stage": None}

    def close() -> None:
        if bar["stage"] is not None:
            bar["context"].__exit__(None, None, None)

    def show(stage: str, done: int, total: int) -> None:
        if bar["stage"] != stage:
            close()
            context = track(stage, total)
            bar.update(stage=stage, context=context, advance=context.__enter__(), done=0)
        if done > bar["done"]:
            bar["advance"](done - bar["done"])
            bar["done"] = done

    try:
        yield show
    finally:
        close()


def counted(show: Stage, stage: str, total: int) -> Advance:
    """A counter of newly finished items that shows itself as a stage."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        show(stage, done, total)

    return advance
