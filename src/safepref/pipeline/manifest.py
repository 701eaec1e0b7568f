"""The record of a run: what it ran on, which stages are done, and how long each took.

All times stand here and none in results.json, so equal runs have equal results.
"""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safepref import __version__
from safepref.errors import InputError
from safepref.hardware import release_memory
from safepref.methods import resolve_methods
from safepref.pipeline.inputs import input_hashes
from safepref.progress import console, duration
from safepref.recipe import Merge, Recipe, parse_recipe
from safepref.store import read_json, sha256_json, write_json
from safepref.tasks import settled

SCHEMA = 1
PACKAGES = ("torch", "transformers", "peft", "accelerate", "lm-eval", "numpy", "scikit-learn", "safetensors")
LATER = ("report", "tradeoff", "evaluation.strengths")
"""Keys that ask for points or choose among them; a change leaves what was trained and scored as it is."""


class Manifest:
    """manifest.json of a run folder, rewritten atomically whenever a stage begins or ends."""

    path: Path | None
    """Null for a worker's copy, which is never written."""
    data: dict[str, Any]

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        """Open the manifest of `folder`, or begin one.

        A recipe with more methods than the folder's, with `rl` where that has none, or with other strengths,
        merges or limits of the recommendation asks for these: what was done stands.

        Raises:
            InputError: the folder holds a run of another recipe; the differing keys are named.
        """
        self.path, recipe = folder / "manifest.json", settled(recipe)
        wanted = recipe.model_dump(mode="json")
        if self.path.exists():
            self.data = read_manifest(self.path)
            known = _filled(self.data["recipe"])
            more = _added(known["methods"], recipe.methods)
            added = ["methods"] if more else []
            if known.get("rl") is None and recipe.rl is not None:
                more, added = [*more, "reinforcement learning"], [*added, "rl"]
            differing = _differences(known | {key: wanted[key] for key in added}, wanted)
            later = [line for line in differing if _is_later(line)]
            differing = [line for line in differing if line not in later] + _other_merges(known, wanted)
            if differing:
                raise InputError(
                    f"{folder} holds a run of another recipe ({'; '.join(differing[:4])}); "
                    "choose another --out, or remove the folder"
                )
            if more or later:
                said = f"{', '.join(more)} added" if more else "other points or limits"
                console().print(f"{folder}: {said}; what is done stands")
                self.data |= {
                    "recipe": wanted,
                    "recipe_sha256": sha256_json(wanted),
                    "forecast_seconds": None,
                }
                self.data["stages"] = [stage for stage in self.data["stages"] if stage["name"] != "report"]
        else:
            self.data = {
                "schema": SCHEMA,
                "safepref": __version__,
                "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "recipe": wanted,
                "recipe_sha256": sha256_json(wanted),
                "seed": recipe.seed,
                "versions": _versions(),
                "hardware": {},
                "plan": {},
                "hashes": {},
                "sets": {},
                "forecast_seconds": None,
                "seconds": 0.0,
                "stages": [],
            }
        spent = sum(stage["seconds"] for stage in self.data["stages"])
        self._before, self._opened = self.data.get("seconds", spent), time.monotonic()
        self._begun: dict[str, float] = {}
        self._save()

    @classmethod
    def copy_of(cls, data: dict[str, Any]) -> Manifest:
        """A worker's copy of a manifest's content."""
        copy = cls.__new__(cls)
        copy.path, copy.data = None, data
        copy._before, copy._opened, copy._begun = 0.0, time.monotonic(), {}
        return copy

    def put(self, section: str, **values: Any) -> None:
        """Lay values into a section (`hardware`, `plan`, `hashes`, `judging`, `sets`) and save."""
        self.data[section] = self.data.get(section, {}) | values
        self._save()

    def done(self, name: str) -> bool:
        """Whether a stage has ended."""
        return any(stage["name"] == name and stage["status"] == "done" for stage in self.data["stages"])

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[bool]:
        """Run a stage: yields False when it is done already, else True and records how it ended.

        Time spent in interrupted attempts is added up, but for what a kill -9 cut off.
        """
        if self.done(name):
            yield False
            return
        self.begin(name)
        console().print(f"[bold]{title}[/bold]")
        status = "interrupted"
        try:
            yield True
            status = "done"
        finally:
            self.end(name, status)
            gc.collect()
            release_memory()
        console().print(f"  {name}: {duration(self._row(name)['seconds'])}")

    def begin(self, name: str) -> None:
        """A stage is under way."""
        if not any(row["name"] == name for row in self.data["stages"]):
            self.data["stages"].append({"name": name, "status": "running", "seconds": 0.0})
        self._row(name)["status"] = "running"
        self._begun[name] = time.monotonic()
        self._save()

    def end(self, name: str, status: str) -> None:
        """A stage has ended; its time is what has passed since it began."""
        row = self._row(name)
        row["status"] = status
        row["seconds"] = round(row["seconds"] + time.monotonic() - self._begun.pop(name), 2)
        self._save()

    def _row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(stage for stage in self.data["stages"] if stage["name"] == name)
        return found

    def forget(self, *names: str) -> None:
        """Take stages out, so that they come again."""
        self.data["stages"] = [stage for stage in self.data["stages"] if stage["name"] not in names]
        self._save()

    def seconds(self, *, without: str = "") -> float:
        """Time of all attempts, but for the stage named; stages side by side count once."""
        return float(self._before + time.monotonic() - self._opened - self.stage_seconds(without))

    def stage_seconds(self, name: str) -> float:
        """Time of one stage's attempts, 0 for one that was not begun."""
        return float(sum(row["seconds"] for row in self.data["stages"] if row["name"] == name))

    def _save(self) -> None:
        if self.path is not None:
            self.data["seconds"] = round(self._before + time.monotonic() - self._opened, 2)
            write_json(self.path, self.data)


def recipe_of(manifest: Path) -> Recipe:
    """The recipe a manifest was made with, for `safepref run --from`; other versions are said.

    Raises:
        InputError: not a manifest, or a file of its recipe is gone or has changed since.
    """
    data = read_manifest(manifest)
    recipe = parse_recipe(data["recipe"], str(manifest))
    found = input_hashes(recipe)
    for name, known in data["hashes"].get("inputs", {}).items():
        if found.get(name) != known:
            what = "has changed since that run" if name in found else "is not there"
            raise InputError(f"{manifest}: {name} {what}; put the old one back, or run a recipe of its own")
    now = _versions()
    other = [
        f"{name} {old}, here {now.get(name)}"
        for name, old in data["versions"].items()
        if old != now.get(name)
    ]
    if other:
        console().print(f"{manifest} was made with {'; '.join(other)}: figures may differ")
    return recipe


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a run's manifest.

    Raises:
        InputError: another file.
    """
    data = read_json(path)
    parts = ("recipe", "stages", "hashes", "versions", "plan")
    if not isinstance(data, dict) or any(part not in data for part in parts):
        raise InputError(f"{path}: not the manifest of a run; give a run folder's own, or another --out")
    return data


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def _added(known: str, wanted: str) -> list[str]:
    """Methods that are wanted beside all the known ones; none where a known one is left out."""
    before, now = ([method.name for method in resolve_methods(names)] for names in (known, wanted))
    return [name for name in now if name not in before] if set(before) <= set(now) else []


def _is_later(line: str) -> bool:
    """Whether a difference is in a key of LATER."""
    key = line.partition(":")[0]
    return any(key == name or key.startswith(f"{name}.") for name in LATER)


def _other_merges(old: Any, new: Any) -> list[str]:
    """Merges that have kept their name and changed what they are: their adapters stand there already."""
    before, now = (
        {
            Merge.model_validate(merge).title: merge
            for merge in (recipe.get("tradeoff") or {}).get("merges", ())
        }
        for recipe in (old, new)
    )
    return [
        f"tradeoff.merges: {title} was {before[title]!r}, name it otherwise"
        for title in before
        if title in now and before[title] != now[title]
    ]


def _filled(old: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version with the keys that it did not know yet, at their defaults."""
    try:
        return parse_recipe(old, "recipe").model_dump(mode="json")
    except InputError:  # it has keys or values that are gone: the differences name them
        return old


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [f"{key}: {old!r} there, {new!r} now"]
