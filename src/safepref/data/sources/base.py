"""What a public data set is to safepref, and how its rows are fetched.

Adding one is one file with a `Source` and one line in `sources/__init__.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from safepref.data.readers import parse_pair, parse_prompt
from safepref.data.records import Pair, Prompt, PromptKind
from safepref.data.rows import Row, RowError, Where, iter_rows
from safepref.errors import InputError

Rows: TypeAlias = Iterable[tuple[Where, Row | RowError]]
Record: TypeAlias = Pair | Prompt
Purpose: TypeAlias = Literal["train", "evaluate"]

_BAD_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a set lives on the model hub, as the arguments of `datasets.load_dataset`."""

    id: str
    split: str
    config: str | None = None
    data_dir: str | None = None
    more: tuple[str, ...] = ()
    """Further configurations whose rows belong to the set."""


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set by name.

    `parse` turns one row in the set's own columns into a record, or None where the set holds rows that are no
    record by design. `gather`, where given, runs over all rows first (sets whose pairs are spread over rows).
    `fit_allowed` is False for sets that are evaluation only: training on them is refused.
    """

    name: str
    title: str
    holds: Literal["pairs", "prompts"]
    licence: str
    paper: str
    fit_allowed: bool
    parse: Callable[[Row, Where], Record | None]
    hub: Hub | None = None
    assets: tuple[str, ...] = ()
    read_asset: Callable[[Path], Rows] = iter_rows
    gather: Callable[[Rows], Rows] | None = None
    home: str = ""
    """Where the file is found, for a set that is on no hub."""
    from_hub: bool = False
    """The hub is read although pinned assets are at hand, which may hold a part of the set only."""

    def rows(self, path: Path | str | None = None) -> Iterator[tuple[Where, Row | RowError]]:
        """The set's raw rows: from a local file in its own columns, else its pinned assets, else the hub.

        `from_hub` passes over the assets.

        Raises:
            InputError: the file, asset or hub cannot be read.
        """
        if path is not None:
            yield from iter_rows(Path(path))
        elif self.assets and not self.from_hub:
            from safepref.assets import fetch

            for asset in self.assets:
                for where, row in self.read_asset(fetch(asset)):
                    yield Where(asset, where.row), row
        else:
            yield from self._from_hub()

    def on_no_hub(self) -> str:
        """What to say where the hub is asked for a set that it does not have."""
        home = f" (from {self.home})" if self.home else ""
        return f"data set {self.name}: is on no hub; give a local file as {self.name}:FILE{home}"

    def _from_hub(self) -> Iterator[tuple[Where, Row | RowError]]:
        from datasets import load_dataset

        if self.hub is None:
            raise InputError(self.on_no_hub())
        hub = self.hub
        for config in (hub.config, *hub.more):
            try:
                rows = load_dataset(hub.id, config, data_dir=hub.data_dir, split=hub.split)
            except Exception as error:  # the library raises a different kind for each way a hub can fail
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                pinned = f", or {self.name} alone for the pinned copy" if self.assets else ""
                raise InputError(
                    f"data set {self.name}: cannot be loaded from hub id {hub.id} ({reason}); check the "
                    f"network and the licence's gate, or give a local file as {self.name}:FILE{pinned}"
                ) from error
            place = f"{hub.id}/{config}" if hub.more else hub.id
            for number, row in enumerate(rows, 1):
                yield Where(place, number), dict(row)

    def records(self, path: Path | str | None = None) -> Loaded:
        """All records, rows that are broken left out and counted.

        Raises:
            InputError: as `rows`; or more than a tenth of the rows are bad, which means that the file is not
                this set; the first bad row is named.
        """
        found: list[Record] = []
        bad: list[RowError] = []
        total = 0
        rows: Rows = self.rows(path)
        for where, row in self.gather(rows) if self.gather else rows:
            total += 1
            try:
                if isinstance(row, RowError):
                    raise row
                record = self.parse(row, where)
            except RowError as error:
                bad.append(error)
                continue
            if record is not None:
                found.append(record)
        if len(bad) > _BAD_SHARE * total:
            raise InputError(f"data set {self.name}: {len(bad)} of {total} rows are bad, first: {bad[0]}")
        if not found:
            raise InputError(f"data set {self.name}: no usable row; is the file in the set's own columns?")
        return Loaded(self, found, bad)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A set's records, and what was wrong with the rows that were left out."""

    source: Source
    records: list[Record]
    bad: list[RowError]


TERMS = (
    ("NC", "no commercial use"),
    ("SA", "changed copies only under the same licence"),
    ("BY", "name the authors"),
    ("MIT", "keep the notice"),
    ("APACHE", "keep the notice"),
    ("CDLA", "pass the licence text on with the data"),
)
"""What a licence asks or forbids, by a word of its name."""


def licence_line(source: Source) -> str:
    """A set's licence, what it asks or forbids, and whether the project trains on it, as one line."""
    words = set(re.findall(r"[A-Z]+", source.licence.upper()))
    asked = "; ".join(dict.fromkeys(text for word, text in TERMS if word in words))
    use = "" if source.fit_allowed else "; for evaluation only here"
    return f"{source.title} (arXiv {source.paper}): {source.licence}: {asked}{use}"


def column(row: Row, where: Where, name: str) -> Any:
    """A column that every row of the set has.

    Raises:
        RowError: it is missing.
    """
    if row.get(name) is None:
        mend = f"give the set in its own columns (found: {', '.join(map(str, row)) or 'none'})"
        raise RowError(where, name, "missing", mend)
    return row[name]


def make_pair(
    where: Where,
    source: str,
    prompt: Any,
    chosen: Any,
    rejected: Any,
    *,
    kind: str = "harmful",
    category: str | None = None,
    attack: str | None = None,
) -> Pair:
    """A checked pair; raises `RowError` as `readers.parse_pair`."""
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "kind": kind, "source": source}
    return parse_pair({**row, "category": category, "attack": attack}, where)


def make_prompt(
    where: Where, source: str, prompt: Any, *, kind: PromptKind = "harmful", category: str | None = None
) -> Prompt:
    """A checked prompt; raises `RowError` as `readers.parse_prompt`."""
    return parse_prompt({"prompt": prompt, "category": category, "source": source}, where, kind)


def text_lines(path: Path) -> Rows:
    """A text file with one prompt a line, as rows with the column `prompt`."""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text.strip():
            yield Where(str(path), number), {"prompt": text.strip()}
