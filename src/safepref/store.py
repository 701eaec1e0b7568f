"""Files that are either whole or absent: atomic writes, JSON lines, locks, and the cache folder.

A reader never sees a half-written file: everything is written beside its place and renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from safepref.errors import InputError


def cache_dir(*parts: str) -> Path:
    """The folder for downloads and computed caches: $SAFEPREF_CACHE, else the user's cache folder."""
    root = os.environ.get("SAFEPREF_CACHE")
    if root is None:
        base = os.environ.get("XDG_CACHE_HOME") or (
            os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
        )
        root = str(Path(base) / "safepref") if base else str(Path.home() / ".cache" / "safepref")
    path = Path(root).expanduser().joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it into place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a result is meant to be read by whoever may read the folder.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in order, floats as they are; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; an error names the file and the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(not_utf8(path, error)) from error
    except (ValueError, RecursionError) as error:
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise InputError(f"{place}: not JSON ({not_json(error)})") from error


def not_json(error: Exception) -> str:
    """Why a text could not be read as JSON: its syntax, its depth, or a number of thousands of digits."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]


def not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """What to say of a file that is not UTF-8."""
    return f"{path}: not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8"


def json_line(row: dict[str, Any]) -> str:
    """One row of JSON lines. A row with half of a surrogate pair, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(row, ensure_ascii=False, sort_keys=True)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row, sort_keys=True)
    return line + "\n"


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    with atomic_write(path) as stream:
        for row in rows:
            stream.write(json_line(row))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; an error names the file and the row."""
    return list(iter_jsonl(path))


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is appended to, none without one; a last line torn by a kill is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines one by one; an error names the file and the row."""
    try:
        # utf-8-sig: editors on Windows put a byte-order mark before the first brace.
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(
                        f"{path}:{number}: not a JSON object ({not_json(error)}); mend or remove the row"
                    ) from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: expected an object, got {type(row).__name__}")
                yield row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(not_utf8(path, error)) from error


def sha256_bytes(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for one process; a second one is refused with the owner's process id.

    The operating system frees the lock when its owner dies, so a killed run leaves no stale lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    owner = folder / ".owner"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        who = owner.read_text().strip() if owner.exists() else "unknown"
        raise InputError(
            f"{folder}: in use by process {who}; wait for it, or choose another --out"
        ) from error
    try:
        owner.write_text(f"{os.getpid()}\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
