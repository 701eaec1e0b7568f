"""Refusals in many wordings: chosen for harmful requests, rejected for harmless look-alikes.

Both are composed from starter/refusals.yaml and depend on nothing but the prompt's id, its category and a
seed. Over-refusals share no phrases with refusals. A harmless pair is refused in the words of one kind or the
other (`data.taught`): in stiff notices, so that the model learns no refusal there at all, or in the taught
words, so that it learns where these do not belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from safepref.data.records import Prompt, content_id
from safepref.errors import InputError
from safepref.taxonomy import Taxonomy, load_taxonomy

GENERIC = "generic"
"""The wordings for prompts whose category has none of its own."""

_TOPIC = "{topic}"


@dataclass(frozen=True, slots=True)
class Wordings:
    """Sentences for the refusals of one macro category; openings may hold `{topic}`."""

    openings: tuple[str, ...]
    reasons: tuple[str, ...]
    offers: tuple[str, ...]
    topics: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Refusals:
    """All wordings: by macro category with `generic` among them, and the two parts of an over-refusal."""

    macros: Mapping[str, Wordings]
    over_openings: tuple[str, ...]
    over_endings: tuple[str, ...]
    short_opening: str

    def short(self, prompt: Prompt, seed: int = 0, taxonomy: Taxonomy | None = None) -> str:
        """The one opening of all short refusals and a reason for the prompt's category."""
        _, macro = _place(prompt.category, taxonomy or load_taxonomy())
        words = self.macros.get(macro, self.macros[GENERIC])
        return f"{self.short_opening} {_draw(words.reasons, prompt, seed, 'reason')}"

    def refusal(self, prompt: Prompt, seed: int = 0, taxonomy: Taxonomy | None = None) -> str:
        """An opening, a reason and an offer for the prompt's category, drawn by its id and the seed."""
        micro, macro = _place(prompt.category, taxonomy or load_taxonomy())
        words = self.macros.get(macro, self.macros[GENERIC])
        topics = words.topics.get(micro, ())
        openings = words.openings if topics else tuple(line for line in words.openings if _TOPIC not in line)
        parts = (_draw(openings, prompt, seed, "opening"), _draw(words.reasons, prompt, seed, "reason"))
        text = " ".join((*parts, _draw(words.offers, prompt, seed, "offer")))
        return text.replace(_TOPIC, _draw(topics, prompt, seed, "topic")) if topics else text

    def over_refusal(self, prompt: Prompt, seed: int = 0) -> str:
        """A needless refusal, drawn by the prompt's id and the seed."""
        opening = _draw(self.over_openings, prompt, seed, "over-opening")
        return f"{opening} {_draw(self.over_endings, prompt, seed, 'over-ending')}"


def refusal_for(prompt: Prompt, seed: int = 0, taxonomy: Taxonomy | None = None) -> str:
    """A short, helpful refusal (20 to 45 tokens) that fits the prompt's category, from the shipped wordings.

    Args:
        prompt: its `id` draws the wording, its `category` (a micro or macro category, or None) the theme.
        seed: another seed, another wording.
        taxonomy: where the category belongs; None for the shipped one. Categories that it does not know, and
            macro categories without wordings, get the generic ones.
    """
    return shipped_refusals().refusal(prompt, seed, taxonomy)


def short_refusal_for(prompt: Prompt, seed: int = 0, taxonomy: Taxonomy | None = None) -> str:
    """A refusal of about 20 tokens with the opening that all short ones share; arguments as `refusal_for`."""
    return shipped_refusals().short(prompt, seed, taxonomy)


def over_refusal_for(prompt: Prompt, seed: int = 0) -> str:
    """A needless refusal, for the rejected side of a harmless prompt, from the shipped wordings."""
    return shipped_refusals().over_refusal(prompt, seed)


@cache
def shipped_refusals() -> Refusals:
    """The wordings of data/starter/refusals.yaml."""
    with as_file(files("safepref.data").joinpath("starter", "refusals.yaml")) as path:
        return load_refusals(path)


def load_refusals(path: Path) -> Refusals:
    """Read wordings from YAML in the layout of the shipped file.

    Raises:
        InputError: the file is missing or not YAML, or a list is missing, empty or holds something other than
            text; the line names file, field, value and mend.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML in UTF-8 ({' '.join(str(error).split())})") from error
    macros = {
        name: Wordings(
            openings=_lines(path, block.get("openings"), f"refusals.{name}.openings"),
            reasons=_lines(path, block.get("reasons"), f"refusals.{name}.reasons"),
            offers=_lines(path, block.get("offers"), f"refusals.{name}.offers"),
            topics={
                micro: _lines(path, phrases, f"refusals.{name}.topics.{micro}")
                for micro, phrases in _mapping(
                    path, block.get("topics", {}), f"refusals.{name}.topics"
                ).items()
            },
        )
        for name, block in _blocks(path, table)
    }
    for name, words in macros.items():
        if all(_TOPIC in line for line in words.openings):
            raise InputError(f"{path}: refusals.{name}.openings: every line has {_TOPIC}; add one without it")
    if GENERIC not in macros:
        raise InputError(f"{path}: refusals.{GENERIC}: missing; add the wordings for all other categories")
    over = _mapping(path, table.get("over_refusals"), "over_refusals")
    return Refusals(
        macros=macros,
        over_openings=_lines(path, over.get("openings"), "over_refusals.openings"),
        over_endings=_lines(path, over.get("endings"), "over_refusals.endings"),
        # Wordings without one of their own open with the first generic line that stands by itself.
        short_opening=_lines(
            path,
            [
                table.get("short_opening")
                or next(line for line in macros[GENERIC].openings if _TOPIC not in line)
            ],
            "short_opening",
        )[0],
    )


def _blocks(path: Path, table: Any) -> list[tuple[str, dict[str, Any]]]:
    refusals = _mapping(path, _mapping(path, table, "the file").get("refusals"), "refusals")
    return [(name, _mapping(path, block, f"refusals.{name}")) for name, block in refusals.items()]


def _mapping(path: Path, value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {field}: must be a mapping, got {value!r}; see the shipped refusals.yaml")
    return value


def _lines(path: Path, value: Any, field: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(line, str) and line for line in value):
        raise InputError(
            f"{path}: {field}: must be a list of texts, got {value!r}; see the shipped refusals.yaml"
        )
    return tuple(value)


def _place(category: str | None, taxonomy: Taxonomy) -> tuple[str, str]:
    """The micro and macro category; a macro category's own name has no micro, an unknown one neither."""
    if category is None or category in taxonomy.macro_ids:
        return "", category or GENERIC
    try:
        return taxonomy.normalise(category), taxonomy.macro_of(category)
    except InputError:
        return "", GENERIC


def _draw(lines: Sequence[str], prompt: Prompt, seed: int, part: str) -> str:
    return lines[int(content_id("refusal", part, prompt.id, str(seed)), 16) % len(lines)]
