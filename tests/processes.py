"""Work in processes of their own, to be killed: they come from a server that imports once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

IMPORTED = ["safepref.pipeline.run", "safepref.evaluation.likelihood", "safepref.judges.embedded_select"]


def apart(work: Callable[..., Any], *arguments: object) -> BaseProcess:
    """`work`, a function of a module, begun in another process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def exit_code(work: Callable[..., Any], *arguments: object) -> int:
    """That of a process which has done `work`; negative the signal that ended it."""
    process = apart(work, *arguments)
    process.join()
    return int(process.exitcode or 0)
