"""What a run begins with: the names in its recipe, the files behind them, what a killed attempt left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from safepref.attacks import get_attack
from safepref.data.sources import licence_line, local_file, source_file
from safepref.errors import InputError
from safepref.evaluation.chat import OWN, check_chat_name
from safepref.evaluation.hub_tasks import check_task_name
from safepref.hardware import choose_device
from safepref.judges.measured import read_calibration
from safepref.judges.refusal_target import read_threshold
from safepref.judges.registry import check_name, fitted_file
from safepref.judges.toxicity_models import check_toxicity
from safepref.pipeline.prompts import ARITHMETIC
from safepref.progress import console
from safepref.recipe import SHIPPED, JudgeSection, Recipe, as_names
from safepref.store import sha256_file
from safepref.tasks import check_judges, task_of
from safepref.tasks.sides import check_files

T = TypeVar("T")
TASK_FILES = ("data.prompts", "evaluation.prompts")
"""Keys whose files a task other than safety reads."""
OWN_FOLDERS = ("adapters", "checkpoints", "data", "logs", "models", "samples", "trials", "work")
"""Folders that a run makes in its own."""
TAUGHT = ("data.prompts", "data.harmless_prompts", "data.general_prompts")
"""Keys that may name the shipped sets, which evaluation takes by null."""


def check_names(recipe: Recipe) -> None:
    """Names of files, sets, attacks, judges and the device, before anything is downloaded.

    Raises:
        InputError: one that stands for nothing; the key, the name and the nearest known one.
    """
    data, asked, judges = recipe.data, recipe.evaluation, recipe.judges
    own = task_of(recipe).sides is not None
    if own:
        check_files(recipe)
    for key, name in _sources(recipe):
        if own and key in TASK_FILES:  # which the task reads, and no set by name
            continue
        _check(key, _check_source, name)
    for key, attacks in (("data.attacks", data.attacks), ("evaluation.attacks", asked.attacks)):
        for attack in attacks:
            _check(key, get_attack, attack)
    for name in asked.capability or ():
        _check("evaluation.capability", _check_task, name)
    for name in asked.chat or ():
        _check("evaluation.chat", check_chat_name, name)
    for name in asked.nats:
        _check("evaluation.nats", _check_file, name)
    _check("judges.select", check_name, judges.select)
    _check("judges.report", check_name, judges.report)
    if judges.vet is not None:
        _check("judges.vet", check_name, judges.vet)
    check_judges(recipe)
    if judges.calibration is not None:
        _check("judges.calibration", read_calibration, judges.calibration)
    _check("judges.toxicity", check_toxicity, judges.toxicity)
    if judges.refusal:
        _check("judges.refusal", read_threshold, Path(judges.refusal))
    _check("model.device", choose_device, recipe.model.device)


def input_hashes(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of each file that the recipe names, by its name there."""
    given = [*(name for _, name in _sources(recipe)), *(recipe.evaluation.capability or ())]
    given += recipe.evaluation.nats
    given += [name.partition(":")[2] or name for name in recipe.evaluation.chat or () if name not in OWN]
    judges = recipe.judges
    # What a judge of this name was fitted with is a file of its own.
    given += [name.partition(":")[2] for name in _judges(judges) if fitted_file(name)]
    given += [judges.refusal] if judges.refusal else []
    given += [judges.calibration] if judges.calibration else []
    return {name: sha256_file(file) for name in given if (file := local_file(name))}


def say_licences(recipe: Recipe) -> dict[str, str]:
    """Print the licence and terms of each public set that a run uses; returns the lines by the set's name."""
    task = task_of(recipe)
    named = [name for key, name in _sources(recipe) if task.sides is None or key not in TASK_FILES]
    if task.adversarial and recipe.evaluation.toxicity is None:
        named.append("real-toxicity-prompts")
    found = licences(named)
    for line in found.values():
        console().print(f"  {line}")
    return found


def licences(names: Iterable[str]) -> dict[str, str]:
    """The licence lines of the named sets among files and NAME:FILE, by the set's name."""
    sources = [source_file(name)[0] for name in names if not Path(name).is_file()]
    return {source.name: licence_line(source) for source in sources}


def remove_half_written(out: Path) -> None:
    """Take away what an attempt that was killed was writing, in the places that are a run's own."""
    found = [*out.glob(".*.json.*.part")]
    for name in OWN_FOLDERS:
        found += (out / name).rglob(".*.part")
    for part in found:
        if part.is_dir():  # an adapter or a model
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)  # one inside a folder that is gone already


def _judges(section: JudgeSection) -> list[str]:
    return [name for name in (section.select, section.report, section.vet) if name is not None]


def _sources(recipe: Recipe) -> list[tuple[str, str]]:
    """Each key of the recipe that names a file or set, with each name in it but for the shipped sets'."""
    data, asked = recipe.data, recipe.evaluation
    named = [
        ("data.prompts", data.prompts),
        ("data.harmless_prompts", data.harmless_prompts),
        ("data.general_prompts", data.general_prompts),
        ("data.pairs", data.pairs),
        ("evaluation.prompts", asked.prompts),
        ("evaluation.benign", asked.benign),
        ("evaluation.toxicity", asked.toxicity),
        ("evaluation.ordinary", asked.ordinary),
    ]
    return [
        (key, name)
        for key, value in named
        if value
        for name in as_names(value)
        if not (key in TAUGHT and name in SHIPPED)
    ]


def _check(key: str, check: Callable[[T], object], name: T) -> None:
    try:
        check(name)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def _check_source(name: str) -> None:
    if Path(name).is_file():
        return
    _, file = source_file(name)
    if file is not None and not file.is_file():
        raise InputError(f"{name}: no such file; give NAME alone, or a file that is there")


def _check_file(name: str) -> None:
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file; give one of GSM8K's rows, question and worked answer")


def _check_task(name: str) -> None:
    if name != ARITHMETIC:
        check_task_name(name)
