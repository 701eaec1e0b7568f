"""The starter set that ships with safepref: requests only, written for it, Apache-2.0.

Harmful requests and harmless look-alikes for each of the 32 micro categories, and general requests. Its
splits are fixed, so that two runs, and two versions of a recipe, hold out the same templates.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import Literal, TypeAlias

from safepref.data.readers import iter_prompts
from safepref.data.records import Prompt, PromptKind, Split
from safepref.data.rows import RowError
from safepref.data.splits import FRACTIONS, split_by_template
from safepref.errors import InputError

StarterKind: TypeAlias = Literal["harmful", "lookalikes", "general"]

_PROMPT_KINDS: dict[StarterKind, PromptKind] = {
    "harmful": "harmful",
    "lookalikes": "harmless",
    "general": "general",
}
_SEED = 0


def load_starter(kind: StarterKind, split: Split | None = None) -> list[Prompt]:
    """The starter prompts of a kind, all or those of one split.

    Splits share no template: 60 % train, 15 % choose, 25 % report of every category.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in _PROMPT_KINDS:
        raise InputError(f"starter set {kind!r}: unknown; one of {', '.join(_PROMPT_KINDS)}")
    return [prompt for prompt in _starter(kind) if split in (None, prompt.split)]


@cache
def _starter(kind: StarterKind) -> tuple[Prompt, ...]:
    prompts: list[Prompt] = []
    folder = files("safepref.data").joinpath("starter")
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if not (entry.name.startswith(f"{kind}.") and entry.name.endswith(".jsonl")):
            continue
        with as_file(entry) as path:
            for _, found in iter_prompts(path, _PROMPT_KINDS[kind]):
                if isinstance(found, RowError):
                    raise found
                prompts.append(found[0])
    parts = split_by_template(prompts, FRACTIONS, _SEED)
    return tuple(prompt for part in parts.values() for prompt in part)
