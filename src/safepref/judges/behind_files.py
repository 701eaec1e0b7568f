"""The requests behind a file that was made from labelled rows: a weighted vote, a threshold, a calibration.

The rows are read again where the set that the file names is still at hand and holds them; else the file's own
digests of its requests are enough to find equal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safepref.errors import InputError
from safepref.judges.labelled import BUILT_IN, Labelled, load_labelled, request_hashes

DIGESTS = "requests"
"""Key of a file under which the digests of its requests stand."""


class Rows(NamedTuple):
    """What is known of the requests behind a file: their texts, else their digests, else None."""

    texts: list[str] | None
    digests: list[str] | None
    source: str


def texts(rows: Iterable[Labelled]) -> list[str]:
    """The requests of labelled rows, distinct; of a row without one, its text."""
    found = (row.exchange.prompt.strip() or row.exchange.response for row in rows)
    return list(dict.fromkeys(text for text in found if text.strip()))


def rows_behind(
    file: Path, found: dict[str, Any], read: Callable[[str | Path], Sequence[Labelled]] = load_labelled
) -> Rows:
    """The requests behind a file that was made from the labelled set under its key `data`.

    Args:
        file: where it lies; a set that is not found from here is looked for beside it.
        found: what stands in it.
        read: reads its set.
    """
    source, kept = str(found.get("data", "")), found.get(DIGESTS)
    known = [str(digest) for digest in kept] if isinstance(kept, list) else None
    places = [Path(source), file.parent / Path(source).name]
    place = source if source in BUILT_IN else next((place for place in places if place.is_file()), None)
    if place is None:
        return Rows(None, known, source)
    try:
        again = read(place)
    except InputError:  # no longer what it was
        return Rows(None, known, source)
    if known is not None and not set(known) <= set(request_hashes(again)):
        return Rows(None, known, source)
    return Rows(texts(again), known, source)
