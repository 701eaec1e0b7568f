"""Public data sets by name.

A set is fetched from the hub or from pinned assets, or read from a local file in its own columns; nothing of
it is shipped. Licences differ, and several are non-commercial: `licence_line` says which, and what follows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from safepref.data.records import Pair, Prompt, PromptKind
from safepref.data.sources import (
    advbench,
    ailuminate,
    alert,
    alert_adversarial,
    alert_dpo,
    beavertails,
    do_not_answer,
    harmbench,
    hh_rlhf,
    in_the_wild,
    jailbreakbench,
    or_bench,
    pku_saferlhf,
    real_toxicity_prompts,
    simple_safety_tests,
    strongreject,
    toxigen,
    xstest,
)
from safepref.data.sources.base import Hub, Loaded, Purpose, Source, licence_line
from safepref.errors import InputError

__all__ = [
    "SOURCES",
    "Hub",
    "Loaded",
    "Purpose",
    "Source",
    "get_source",
    "licence_line",
    "load_pairs",
    "load_prompts",
    "local_file",
    "source_file",
]

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        source.name: source
        for source in (
            pku_saferlhf.SOURCE,
            hh_rlhf.SOURCE,
            beavertails.SOURCE,
            alert_dpo.SOURCE,
            alert.SOURCE,
            alert_adversarial.SOURCE,
            xstest.SOURCE,
            real_toxicity_prompts.SOURCE,
            advbench.SOURCE,
            do_not_answer.SOURCE,
            harmbench.SOURCE,
            in_the_wild.SOURCE,
            strongreject.SOURCE,
            jailbreakbench.SOURCE,
            jailbreakbench.BENIGN,
            simple_safety_tests.SOURCE,
            ailuminate.SOURCE,
            or_bench.SOURCE,
            or_bench.LARGE,
            or_bench.TOXIC,
            toxigen.SOURCE,
        )
    }
)


HUB = "hub"
"""Behind a set's name and an @: from the hub, whatever is pinned."""


def get_source(name: str) -> Source:
    """A set by name, case and underscores aside; NAME@hub passes over the pinned copy of it.

    Raises:
        InputError: no such set, the nearest is named; or one that is on no hub.
    """
    bare, at, place = _spelled(name).partition("@")
    if bare not in SOURCES:
        near = difflib.get_close_matches(bare, SOURCES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"data set {name!r}: unknown; {hint}one of {', '.join(SOURCES)}, or a file")
    source = SOURCES[bare]
    if not at:
        return source
    if place != HUB:
        raise InputError(f"data set {name!r}: behind the @ stands {place!r}; write {bare}@{HUB}, or {bare}")
    if source.hub is None:
        raise InputError(source.on_no_hub())
    return replace(source, from_hub=True)


def _spelled(name: str) -> str:
    return name.casefold().replace("_", "-")


def source_file(text: str) -> tuple[Source, Path | None]:
    """The set that NAME, NAME@hub or NAME:FILE stands for, and the file to read in place of hub or assets.

    Raises:
        InputError: no such set; a path where no file is; or both a file and the hub.
    """
    name, colon, file = text.partition(":")
    bare, at, _ = _spelled(name).partition("@")
    if bare not in SOURCES and any(mark in text for mark in "/\\."):
        problem = "is a folder, not a file" if Path(text).is_dir() else "no such file"
        raise InputError(
            f"{text}: {problem}; give a path, a named set ({', '.join(SOURCES)}), or NAME:FILE for a file "
            "in the columns of a set"
        )
    source = get_source(name)
    if colon and (at or not file):
        what = "names the hub and a file" if at and file else "names no file"
        raise InputError(f"{text}: {what}; write {bare}:FILE, {bare}@{HUB} or {bare}")
    return source, Path(file) if file else None


def local_file(text: str) -> Path | None:
    """The file that a recipe's FILE or NAME:FILE reads, or None where it reads none."""
    places = (Path(text), Path(text.partition(":")[2]))
    return next((place for place in places if place.is_file()), None)


def load_pairs(
    name: str | Source, path: Path | str | None = None, *, purpose: Purpose = "train"
) -> tuple[list[Pair], Loaded]:
    """All pairs of a set, and what was left out.

    Args:
        name: what `get_source` takes, or gives.
        path: a local file in the set's own columns, instead of the hub or the assets.
        purpose: "train" is refused for sets that are evaluation only.

    Raises:
        InputError: unknown name, a set of prompts, an evaluation-only set, or data that cannot be read.
    """
    loaded = _load(name, path, purpose, "pairs")
    return [record for record in loaded.records if isinstance(record, Pair)], loaded


def load_prompts(
    name: str | Source,
    path: Path | str | None = None,
    *,
    kind: PromptKind | None = None,
    purpose: Purpose = "evaluate",
) -> tuple[list[Prompt], Loaded]:
    """All prompts of a set, or those of one kind (XSTest holds two), and what was left out.

    Other arguments and errors as `load_pairs`; a set without any prompt of the kind is an error too.
    """
    loaded = _load(name, path, purpose, "prompts")
    prompts = [record for record in loaded.records if isinstance(record, Prompt)]
    kept = [prompt for prompt in prompts if kind in (None, prompt.kind)]
    if not kept:
        raise InputError(
            f"data set {loaded.source.name}: holds no {kind} prompt, only {prompts[0].kind} ones; "
            "name another"
        )
    return kept, loaded


def _load(name: str | Source, path: Path | str | None, purpose: Purpose, wanted: str) -> Loaded:
    source = get_source(name) if isinstance(name, str) else name
    name = source.name
    if source.holds != wanted:
        raise InputError(f"data set {name}: holds {source.holds}, not {wanted}; name another")
    if purpose == "train" and not source.fit_allowed:
        allowed = ", ".join(s.name for s in SOURCES.values() if s.fit_allowed and s.holds == wanted)
        raise InputError(
            f"data set {name}: for evaluation only, training on it would spoil it; train on {allowed}"
        )
    return source.records(path)
