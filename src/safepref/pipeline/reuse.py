"""What one run takes over from another: the base's answers and likelihoods, which no training changes.

Where one setting is changed at a time, most of a run is the base asked again. All of it lies in files whose
rows are named by content, so copies of them are read as a stopped run's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safepref.errors import InputError
from safepref.evaluation.samples import RESUME
from safepref.pipeline.base_side import FOLDER
from safepref.pipeline.manifest import read_manifest
from safepref.progress import console
from safepref.recipe import Recipe, load_recipe
from safepref.store import atomic_write

if TYPE_CHECKING:
    from safepref.pipeline.job import Job


def take_over(job: Job, source: Path) -> int:
    """Copy the base's work of the run in `source` into a run that has not done it.

    Answers that pairs were made of are taken where model, seed, system prompt and their length are those of
    this run; what was asked in evaluation is named by model and content, so it is always good. Answers that
    another batch decoded may differ from one's own in the last bits of their sums.

    Returns:
        The number of files taken over.

    Raises:
        InputError: no run lies there, or it is of another model or dtype.
    """
    kept = check_source(source)
    ours = (job.fingerprint, job.manifest.data["plan"].get("dtype"))
    theirs = (kept["hashes"].get("model"), kept["plan"].get("dtype"))
    if theirs != ours:
        raise InputError(
            f"--reuse {source}: its model has other weights or another dtype ({theirs[1]} there, {ours[1]} "
            "here); leave --reuse out"
        )
    files = [*_asked(source)]
    if _like(load_recipe(source / "recipe.yaml")) == _like(job.recipe):
        files += sorted((source / "data" / "answers").glob("*.jsonl"))
    taken = 0
    for file in files:
        place = job.out / file.relative_to(source)
        if not place.exists():
            with atomic_write(place, "wb") as stream:
                stream.write(file.read_bytes())
            taken += 1
    if taken:
        job.manifest.put("reused", **{str(source): taken})
        console().print(f"Taken over from {source}: {taken} files of the base's answers and likelihoods")
    return taken


def check_source(source: Path) -> dict[str, Any]:
    """The manifest of a run whose answers may be taken over.

    Raises:
        InputError: no run lies there, or it has not begun to use its model.
    """
    if not (source / "manifest.json").exists():
        raise InputError(f"--reuse {source}: no run's folder (it has no manifest.json)")
    kept = read_manifest(source / "manifest.json")
    if "model" not in kept["hashes"]:
        raise InputError(f"--reuse {source}: stopped before its model was used; let it go on first")
    return kept


def _asked(source: Path) -> Iterator[Path]:
    """The logs of the base's evaluation."""
    for folder in (source / "work" / "samples", source.joinpath(*FOLDER)):
        pattern = f"*/{'base/' if folder.name == 'samples' else ''}{RESUME}/*.jsonl"
        yield from sorted(folder.glob(pattern))


def _like(recipe: Recipe) -> tuple[object, ...]:
    """What the base's answers to training prompts depend on, beside the prompts."""
    data = recipe.data
    return recipe.seed, recipe.model.system, data.answer_tokens, data.temperature
