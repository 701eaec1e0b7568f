"""Training and evaluation in several processes side by side, each with its share of the machine.

On a CPU two processes of one thread do more than one of two: nothing waits at the end of each operation, and
what has no second thread to use (small operations, Python) is done twice at the same time. Workers are sent
one stage after the other; the manifest is written here alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safepref.errors import Interrupted, SafeprefError
from safepref.hardware import memory_bytes, out_of_memory, take_share, threads, tune_process
from safepref.judges.registry import is_embedded
from safepref.models import LoadedModel
from safepref.pipeline.job import Job
from safepref.pipeline.manifest import Manifest
from safepref.pipeline.tasks import Task
from safepref.progress import Board, Report, board, relay
from safepref.recipe import Recipe

WORK_BYTES = 5 * 2**30
"""What a worker needs beside weights: activations, gradients and logits, or keys and values."""
END_SECONDS = 10
"""What a worker without work is given to end by itself."""
WEIGHT_COPIES = 2
"""A worker's weights, and what merging an adapter into them takes."""


def sensible_workers(loaded: LoadedModel, recipe: Recipe, methods: int) -> int:
    """As many processes as there are methods, cores, and room in memory.

    One where a CPU does not compute, and where each worker would hold more large models: a policy that is
    trained in all its weights with their moments, or a guard model as judge.
    """
    embedded = is_embedded(recipe.judges.select) and is_embedded(recipe.judges.report)
    if loaded.device.type != "cpu" or recipe.training.full or not embedded:
        return 1
    weights = sum(int(p.numel() * p.element_size()) for p in loaded.model.parameters())
    room = (memory_bytes(loaded.device) - weights) // (WEIGHT_COPIES * weights + WORK_BYTES)
    return max(1, min(methods, threads(), room))


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has finished its stage."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's stage ended in an error."""

    error: Exception | None
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
        Interrupted: a worker was ended from outside.
        Exception: what a stage raised in its worker. The others are stopped; the run goes on from there.
    """
    manifest, left = job.manifest, list(tasks)
    _ = job.fingerprint  # so that the workers know it
    workers: list[Worker] = []
    with board() as shown:
        try:
            with _interrupts_ignored():
                workers.extend(_start(job) for _ in range(count))
            while left or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.task is None and (task := _ready(left, manifest)) is not None:
                        left.remove(task)
                        manifest.begin(task.name)
                        worker.task = task
                        with suppress(OSError):  # a worker that is gone is heard of below
                            worker.pipe.send(task)
                for pipe in wait([worker.pipe for worker in workers]):
                    _hear(next(worker for worker in workers if worker.pipe is pipe), manifest, shown)
            for worker in workers:
                with suppress(OSError):
                    worker.pipe.send(None)
                worker.process.join(END_SECONDS)
        finally:
            for worker in workers:
                if worker.task is not None:
                    manifest.end(worker.task.name, "interrupted")
                worker.process.terminate()
            for worker in workers:
                worker.process.join()
                worker.pipe.close()


def _start(job: Job) -> Worker:
    # Forking this process, whose threads compute, can hang. A fork server has computed nothing and imports
    # once for all workers; beside Linux, system libraries that it has loaded may not outlive a fork.
    if sys.platform == "linux":
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
    else:
        context = get_context("spawn")
    ours, theirs = context.Pipe()
    values = (type(job), job.recipe, job.out, job.manifest.data, theirs)
    process = context.Process(target=_work, args=values, daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which reaches the whole group; the parent ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ready(left: Sequence[Task], manifest: Manifest) -> Task | None:
    return next((task for task in left if all(map(manifest.done, task.needs))), None)


def _hear(worker: Worker, manifest: Manifest, shown: Board) -> None:
    """Take one message of a worker."""
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        raise Interrupted(
            f"{worker.task.name if worker.task else 'a worker'}: its process ended with exit code "
            f"{worker.process.exitcode}; -9 is often a want of memory: the same command with --workers 1 "
            "continues in less"
        ) from None
    if isinstance(message, Report):
        shown.show(message)
    elif isinstance(message, Failed):
        trace = RuntimeError(f"in a worker:\n{message.trace}")
        raise message.error or trace from trace
    elif worker.task is not None:
        manifest.end(worker.task.name, "done")
        shown.end(worker.task.point)
        worker.task = None


def _work(kind: type[Job], recipe: Recipe, out: Path, state: dict[str, Any], pipe: Connection) -> None:
    """A worker's whole life: stages come through the pipe until null does, progress and ends go back."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a fork server may have been begun without that
    tune_process()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = kind(recipe, out, Manifest.copy_of(state))
        take_share(state["plan"]["shares"], state["plan"]["threads"])
        # tqdm's own lock is one between processes, which a worker that is terminated would leave behind.
        tqdm.set_lock(threading.RLock())
        while (task := pipe.recv()) is not None:
            with relay(pipe.send, task.point):
                job.do(task)
            pipe.send(Done())
    except Exception as error:
        # A broken pipe would be taken for the command's closed output.
        mendable = isinstance(error, SafeprefError | OSError) and not isinstance(error, BrokenPipeError)
        known = MemoryError(str(error)) if out_of_memory(error) else error if mendable else None
        with suppress(OSError):
            pipe.send(Failed(known, traceback.format_exc()))


def _end_with_parent() -> None:
    """A worker must not write on when its run was killed and is perhaps started again."""
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
