"""Rows of a user's file, one by one, and the one-line error that names a bad one.

JSON lines, JSON (a list, or an object with a list under `data`, `rows` or `examples`), CSV and Parquet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from safepref.errors import InputError
from safepref.store import not_json, not_utf8

Row: TypeAlias = dict[str, Any]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SHOWN = 60


class Where(NamedTuple):
    """The place of a row. `row` is the line of a JSON-lines file, otherwise the record's number from 1."""

    file: str
    row: int


class RowError(InputError):
    """One bad row. The text is `file:row: field: problem (value); mend`.

    Args:
        where: file and row.
        field: the field at fault, or "" for the whole row.
        problem: what is wrong.
        value: the value as it stands; it is shown shortened. `Ellipsis` shows none.
        mend: what to do.
    """

    def __init__(self, where: Where, field: str, problem: str, mend: str, value: Any = ...) -> None:
        self.where, self.field, self.problem, self.mend = where, field, problem, mend
        self.value = "" if value is ... else show(value)
        super().__init__(line(where, field, problem, self.value, mend))


def line(where: Where, field: str, problem: str, value: str, mend: str) -> str:
    """The one form in which every finding about data is printed."""
    place = f"{where.file}:{where.row}" if where.row else where.file
    return f"{place}: {f'{field}: ' if field else ''}{problem}{f' ({value})' if value else ''}; {mend}"


def show(value: Any) -> str:
    """A value on one line, shortened to about 60 characters, control characters escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        text = repr(value)
    # A lone surrogate cannot be printed; a terminal must not be steered by the data it is shown.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def iter_rows(path: Path) -> Iterator[tuple[Where, Row | RowError]]:
    """Every row of a file with its place; a row that is no object comes as the error that it is.

    Raises:
        InputError: the file is absent, empty, of an unknown kind, or unreadable as a whole.
    """
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {problem}; give a {', '.join(SUFFIXES)} file")
    readers = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; give one of {', '.join(SUFFIXES)}")
    empty = True
    try:
        for found in reader(path):
            empty = False
            yield found
    except UnicodeDecodeError as error:
        raise InputError(not_utf8(path, error)) from error
    if empty:
        raise InputError(f"{path}: no rows; give a file with at least one")


def _object(where: Where, value: Any) -> Row | RowError:
    if isinstance(value, dict):
        return value
    return RowError(
        where, "", f"expected an object, got {type(value).__name__}", "write one {…} a row", value
    )


def _jsonl(path: Path) -> Iterator[tuple[Where, Row | RowError]]:
    # utf-8-sig: editors on Windows put a byte-order mark before the first brace.
    with path.open(encoding="utf-8-sig") as stream:
        for number, text in enumerate(stream, 1):
            if not text.strip():
                continue
            where = Where(str(path), number)
            try:
                yield where, _object(where, json.loads(text))
            except (ValueError, RecursionError) as error:
                problem = f"not JSON: {not_json(error)}"
                yield where, RowError(where, "", problem, "mend or remove the row", text.strip())


def _json(path: Path) -> Iterator[tuple[Where, Row | RowError]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise InputError(
            f"{place}: not JSON ({not_json(error)}); if it holds one object a line, call it .jsonl"
        ) from error
    if isinstance(value, dict):
        value = next((value[key] for key in ("data", "rows", "examples") if key in value), None)
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of objects, or one under 'data', 'rows' or 'examples'")
    for number, item in enumerate(value, 1):
        where = Where(str(path), number)
        yield where, _object(where, item)


def _csv(path: Path) -> Iterator[tuple[Where, Row | RowError]]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        # Strict: without it a quote that is never closed takes the rest of the file into one cell.
        table = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(table, None)
            if header is None:
                return
            twice = [name for at, name in enumerate(header) if name and name in header[:at]]
            if twice:
                raise InputError(f"{path}:1: two columns are called {twice[0]!r}; rename one, or remove it")
            for number, cells in enumerate((cells for cells in table if cells), 1):
                where = Where(str(path), number)
                if len(cells) != len(header):
                    problem = f"{len(cells)} cells under {len(header)} columns"
                    yield where, RowError(where, "", problem, "quote commas and line ends inside a cell")
                else:
                    yield where, {k: _cell(v) for k, v in zip(header, cells, strict=True) if v != ""}
        except csv.Error as error:
            raise InputError(f"{path}:{table.line_num}: not CSV ({error}); mend the line") from error


def _cell(text: str) -> Any:
    """A cell; one that holds a JSON list of messages becomes that list, for CSV has no other way."""
    if text.startswith("[") and '"role"' in text:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _parquet(path: Path) -> Iterator[tuple[Where, Row | RowError]]:
    import pyarrow as arrow  # type: ignore[import-untyped]
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield Where(str(path), number), row
    except (arrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not Parquet ({str(error).splitlines()[0]}); write it again") from error
