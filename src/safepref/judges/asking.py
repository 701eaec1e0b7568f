"""Many questions to one server: side by side, in order, and an error at once where none is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from safepref.generation.api import ServerError
from safepref.judges.base import Exchange

T = TypeVar("T")


def ask_all(
    exchanges: Sequence[Exchange], ask: Callable[[Exchange], T], concurrency: int
) -> list[T | ServerError]:
    """What `ask` gives for each exchange; a failure is handed back in its place, for others may be answered.

    Raises:
        ServerError: none of the first exchanges was answered, as many as are under way at once; with
            thousands to come, waiting for each would take hours. One lone exchange that the server refuses
            is no such failure.
    """

    def one(exchange: Exchange) -> T | ServerError:
        try:
            return ask(exchange)
        except ServerError as error:
            return error

    with ThreadPoolExecutor(concurrency) as pool:
        first = exchanges[:concurrency]
        given = list(pool.map(one, first))
        errors = [answer for answer in given if isinstance(answer, ServerError)]
        lone = len(first) == 1 and errors and errors[0].is_of_the_request
        if errors and len(errors) == len(first) and not lone:
            raise errors[0]
        given += pool.map(one, exchanges[concurrency:])
    return given
