"""Training and evaluation in several processes side by side, each with its share of the cores.

On a CPU two processes of one thread do more than one of two: nothing waits at the end of each operation, and
what has no second thread to use (small operations, Python) is done twice at the same time. Workers are sent
one stage after the other; the manifest is written here alone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from safepref.errors import InputError, SafeprefError
from safepref.hardware import memory_bytes, threads, tune_process
from safepref.models import LoadedModel
from safepref.pipeline.job import Job, Task
from safepref.pipeline.manifest import Manifest
from safepref.progress import Report, board, relay
from safepref.recipe import Recipe

WORK_BYTES = 4 * 2**30
"""What a worker needs beside weights: activations, gradients and logits, or keys and values."""
WEIGHT_COPIES = 2
"""A worker's weights, and what reading or merging them takes for a while."""


def sensible_workers(loaded: LoadedModel, methods: int) -> int:
    """As many processes as there are methods, cores, and room in memory; one where a CPU does not compute."""
    if loaded.device.type != "cpu":
        return 1
    weights = sum(int(p.numel() * p.element_size()) for p in loaded.model.parameters())
    room = memory_bytes(loaded.device) // (WEIGHT_COPIES * weights + WORK_BYTES)
    return max(1, min(methods, threads(), room))


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has finished its stage."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's stage ended in an error."""

    error: SafeprefError | MemoryError | OSError | None
    """An error that the user can mend, else null."""
    trace: str


@dataclass(slots=True)
class Worker:
    """A process, the pipe to it, and what it is doing."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None


def side_by_side(job: Job, tasks: Sequence[Task], count: int) -> None:
    """Do all tasks in `count` processes. The earlier ones come first, each after the one that it needs.

    Raises:
        InputError: a worker was ended from outside.
        Exception: what a stage raised in its worker. The others are stopped; the run goes on from there.
    """
    manifest, left = job.manifest, list(tasks)
    context = get_context("spawn")  # forking a process whose threads compute can hang
    workers: list[Worker] = []
    with board() as show:
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                values = (job.recipe, job.out, theirs)
                process = context.Process(target=_work, args=values, daemon=True)
                process.start()
                theirs.close()
                workers.append(Worker(process, ours))
            while left or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.task is None and (task := _ready(left, manifest)) is not None:
                        left.remove(task)
                        manifest.begin(task.name)
                        worker.task = task
                        worker.pipe.send(task)
                for pipe in wait([worker.pipe for worker in workers if worker.task]):
                    worker = next(worker for worker in workers if worker.pipe is pipe)
                    _hear(worker, manifest, show)
        finally:
            for worker in workers:
                if worker.task is not None:
                    manifest.end(worker.task.name, "interrupted")
                worker.process.terminate()
            for worker in workers:
                worker.process.join()
                worker.pipe.close()


def _ready(left: Sequence[Task], manifest: Manifest) -> Task | None:
    return next((task for task in left if task.needs is None or manifest.done(task.needs)), None)


def _hear(worker: Worker, manifest: Manifest, show: Any) -> None:
    """Take one message of a worker."""
    task = worker.task
    assert task is not None
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        raise InputError(
            f"{task.name}: its process was ended from outside (exit code {worker.process.exitcode}), perhaps "
            "for want of memory; the same command continues, with --workers 1 in less memory"
        ) from None
    if isinstance(message, Report):
        show(message)
    elif isinstance(message, Done):
        worker.task = None
        manifest.end(task.name, "done", message.seconds)
    else:
        raise message.error or RuntimeError(f"{task.name} failed in its process:\n{message.trace}")


def _work(recipe: Recipe, out: Path, pipe: Connection) -> None:
    """A worker's whole life: stages are taken from the pipe, progress and ends are sent back."""
    tune_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the rest
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = Job(recipe, out, Manifest.copy_of(out, recipe))
    while True:
        task: Task = pipe.recv()
        with relay(pipe.send, task.point):
            start = time.monotonic()
            try:
                job.do(task)
            except Exception as error:
                known = isinstance(error, SafeprefError | MemoryError | OSError)
                pipe.send(Failed(error if known else None, traceback.format_exc()))  # type: ignore[arg-type]
                return
        pipe.send(Done(time.monotonic() - start))


def _end_with_parent() -> None:
    """A worker must not write on when its run was killed and is perhaps started again."""
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
