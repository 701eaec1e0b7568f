"""Progress with time left: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
"""Called with the number of newly finished items."""

QUIET_SECONDS = 10.0
"""Without a terminal, at most one line in this time."""
SENT_SECONDS = 0.5
"""A worker sends its counts at most this often."""


def duration(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has to say: a line, or how far it is."""

    who: str
    text: str
    """A line, or the title of what is counted."""
    done: int = 0
    total: int | None = None
    """Null for a line."""


class _Lines(io.StringIO):
    """A file whose lines are sent off."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__()
        self.send = send
        self.rest = ""

    def write(self, text: str) -> int:
        """Send what is whole."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.send(line)
        return len(text)


_relay: list[tuple[Callable[[Report], None], str]] = []


@contextmanager
def relay(send: Callable[[Report], None], who: str) -> Iterator[None]:
    """Send progress and notes of this process elsewhere while the block runs, in the name of `who`."""
    _relay.append((send, who))
    try:
        yield
    finally:
        _relay.pop()


def console() -> Console:
    """Where progress and notes are written: standard error, so that standard output stays for results."""
    if _relay:
        send, who = _relay[-1]
        lines = _Lines(lambda line: send(Report(who, line)))
        return Console(file=lines, highlight=False, soft_wrap=True, force_terminal=False)
    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def track(title: str, total: int) -> Iterator[Advance]:
    """Show a task of `total` items while the block runs; call the yielded function with finished counts."""
    if _relay:
        yield _sent(title, total)
    elif console().is_terminal:
        with _bars() as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _lines(title, total)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<36}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console(),
    )


def _sent(title: str, total: int) -> Advance:
    send, who = _relay[-1]
    done, last = 0, 0.0
    send(Report(who, title, 0, total))

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if done >= total or now - last > SENT_SECONDS:
            last = now
            send(Report(who, title, done, total))

    return advance


class Board(Protocol):
    """What several workers report."""

    def show(self, report: Report) -> None:
        """A line, or how far a worker is."""
        ...

    def end(self, who: str) -> None:
        """A worker's work of that name is over."""
        ...


@contextmanager
def board() -> Iterator[Board]:
    """A bar for each worker on a terminal, elsewhere lines with its name."""
    if not console().is_terminal:
        yield _LineBoard()
        return
    with _bars() as bars:
        yield BarBoard(bars)


class BarBoard:
    """Bars of what is under way; lines stand above them."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self._shown: dict[str, tuple[str, TaskID]] = {}

    def show(self, report: Report) -> None:
        """As `Board` says."""
        if report.total is None:
            self.bars.console.print(f"{report.who}: {report.text.strip()}", markup=False)
            return
        if self._shown.get(report.who, ("",))[0] != report.text:
            self.end(report.who)
            task = self.bars.add_task(f"{report.who}: {report.text}", total=report.total)
            self._shown[report.who] = (report.text, task)
        self.bars.update(self._shown[report.who][1], completed=report.done)

    def end(self, who: str) -> None:
        """As `Board` says."""
        if who in self._shown:
            self.bars.remove_task(self._shown.pop(who)[1])


class _LineBoard:
    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], tuple[Advance, int]] = {}

    def show(self, report: Report) -> None:
        if report.total is None:
            print(f"  {report.who}: {report.text.strip()}", file=sys.stderr, flush=True)
            return
        key = (report.who, report.text)
        if report.done == 0 or key not in self._counters:
            self._counters[key] = (_lines(f"{report.who}: {report.text}", report.total), 0)
        advance, before = self._counters[key]
        self._counters[key] = (advance, report.done)
        if report.done > before:
            advance(report.done - before)

    def end(self, who: str) -> None:
        self._counters = {key: value for key, value in self._counters.items() if key[0] != who}


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
