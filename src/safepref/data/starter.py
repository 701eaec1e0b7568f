"""The sets that ship with safepref: requests only, written for it, Apache-2.0.

The starter set: harmful requests and harmless look-alikes for each of the 32 micro categories, and general
requests. Its splits are fixed, so that two runs, and two versions of a recipe, hold out the same templates.

The extended set: many more look-alikes, harmful twins of a part of them (the same frame with a harmful
meaning), and general requests. It is for training; what is evaluated is left out of it by template.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from typing import Literal, TypeAlias

from safepref.data.readers import read_prompts
from safepref.data.records import Prompt, PromptKind, Split
from safepref.data.splits import FRACTIONS, split_by_template
from safepref.errors import InputError

StarterKind: TypeAlias = Literal["harmful", "lookalikes", "general"]

_PROMPT_KINDS: dict[str, PromptKind] = {
    "harmful": "harmful",
    "lookalikes": "harmless",
    "general": "general",
}
_SEED = 0


def load_starter(kind: StarterKind, split: Split | None = None) -> list[Prompt]:
    """The starter prompts of a kind, all or those of one split.

    Splits share no template, not even across kinds: 60 % train, 15 % choose, 25 % report of every category.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in _PROMPT_KINDS:
        raise InputError(f"starter set {kind!r}: unknown; one of {', '.join(_PROMPT_KINDS)}")
    wanted = _PROMPT_KINDS[kind]
    return [p for p in _starter() if p.kind == wanted and split in (None, p.split)]


def load_extended(kind: StarterKind) -> list[Prompt]:
    """The extended set's prompts of a kind.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in _PROMPT_KINDS:
        raise InputError(f"extended set {kind!r}: unknown; one of {', '.join(_PROMPT_KINDS)}")
    return [p for p in _extended() if p.kind == _PROMPT_KINDS[kind]]


@cache
def _starter() -> tuple[Prompt, ...]:
    """Everything, dealt in one go, so that no held-out look-alike has a template of harmful training."""
    parts = split_by_template(_read("starter"), FRACTIONS, _SEED)
    return tuple(prompt for part in parts.values() for prompt in part)


@cache
def _extended() -> tuple[Prompt, ...]:
    """Without the names of their frames, which are as wide as "how do I": one row like an evaluated prompt
    would take all rows of its frame out of training. Families are found by the texts, as in any file."""
    return tuple(replace(prompt, template="") for prompt in _read("extended"))


def _read(folder: str) -> list[Prompt]:
    prompts: list[Prompt] = []
    for entry in sorted(files("safepref.data").joinpath(folder).iterdir(), key=lambda e: e.name):
        kind = _PROMPT_KINDS.get(entry.name.split(".")[0])
        if kind is not None and entry.name.endswith(".jsonl"):
            with as_file(entry) as path:
                prompts += read_prompts(path, kind)
    return prompts
