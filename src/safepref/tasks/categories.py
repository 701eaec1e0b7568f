"""Texts with the categories that people gave them, and what the categories mean.

A user's rows hold `text` and `category` (one name, or a list where several are right; `none` where the text
violates nothing), or `text` and `labels` of OpenAI's moderation release (arXiv 2208.03274), in which a
missing key is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from safepref.data.rows import Row, RowError, Where, iter_rows
from safepref.errors import InputError
from safepref.judges.labels import folded
from safepref.taxonomy import load_taxonomy

NONE = "none"
NONE_MEANS = "harmless, or only looks harmful"


Meanings: TypeAlias = Mapping[str, str]
"""Short meanings by category, `none` not among them; empty where a user's file gives none."""


def alert() -> Meanings:
    """The six macro categories of ALERT (arXiv 2404.08676)."""
    taxonomy = load_taxonomy()
    macros = [taxonomy.macro(name) for name in taxonomy.macro_ids]
    return {macro.id: macro.description.rstrip(".") for macro in macros}


OPENAI: Meanings = {
    "sexual": "sexual content",
    "hate": "contempt or threats against people for what they are",
    "violence": "praise, threats or scenes of violence",
    "harassment": "insults or threats against a person",
    "self_harm": "suicide or hurting oneself",
}
NEAR: Mapping[str, tuple[str, ...]] = {
    "crime": ("weapon", "substance"),
    "hate": ("harassment", "violence", "crime"),
    "substance": ("crime", "self_harm"),
    "sex": ("hate", "crime"),
    "self_harm": ("substance", "violence", "weapon"),
    "weapon": ("crime", "hate"),
    "sexual": ("harassment",),
    "violence": ("hate", "self_harm"),
    "harassment": ("hate", "violence"),
}
"""What a category is easily taken for."""
OPENAI_KEYS: Mapping[str, tuple[str, ...]] = {
    "sexual": ("S", "S3"),
    "hate": ("H", "H2"),
    "violence": ("V", "V2"),
    "harassment": ("HR",),
    "self_harm": ("SH",),
}
"""The release's labels behind each category. The second is a kind of the first: a 1 of it is a 1 of the
first, a 0 of the first is a 0 of it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with 1, 0 or None (nobody said) for each category."""

    text: str
    labels: Mapping[str, int | None]

    @property
    def category(self) -> str | None:
        """The first right category; `none` where all are known to be wrong, None where that is not known."""
        right = [name for name, label in self.labels.items() if label == 1]
        if right:
            return right[0]
        return NONE if all(label == 0 for label in self.labels.values()) else None


def read_texts(path: str) -> tuple[list[Labelled], Meanings]:
    """The labelled texts of a file, and their categories.

    Raises:
        InputError: a bad row, by file, row, field and value, or rows of both kinds.
    """
    rows: list[tuple[Where, Row]] = []
    for where, row in iter_rows(Path(path)):
        if isinstance(row, RowError):
            raise row
        rows.append((where, row))
    with_labels = [isinstance(row.get("labels"), dict) for _, row in rows]
    if all(with_labels):
        return [_openai(where, row) for where, row in rows], OPENAI
    if any(with_labels):
        raise InputError(f"{path}: some rows have `labels` and some do not; give one kind in a file")
    found = [(_text(where, row), _given(where, row)) for where, row in rows]
    names = [name for name in dict.fromkeys(n for _, given in found for n in given) if name != NONE]
    alike: dict[str, str] = {}
    for name in (NONE, *names):
        if (first := alike.setdefault(folded(name), name)) != name:
            raise InputError(f"{path}: the categories {first!r} and {name!r} read alike; write them as one")
    labelled = [Labelled(text, {name: int(name in given) for name in names}) for text, given in found]
    return labelled, dict.fromkeys(names, "")


def _text(where: Where, row: Row) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise RowError(where, "text", "no text", "give the text to be sorted", text)
    return text


def _given(where: Where, row: Row) -> tuple[str, ...]:
    given: Any = row.get("category")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        mend = "give one category name, a list of them, or none"
        raise RowError(where, "category", "no category", mend, given)
    found = tuple(name.strip() for name in names)
    if NONE in found and len(set(found)) > 1:
        raise RowError(where, "category", "none beside a category", "give one or the other", given)
    return found


def _openai(where: Where, row: Row) -> Labelled:
    flags = row["labels"]
    known = [key for keys in OPENAI_KEYS.values() for key in keys]
    for key, value in flags.items():
        if key not in known or (value is not None and value not in (0, 1)):
            raise RowError(where, f"labels.{key}", "unknown label", f"0 or 1 of {', '.join(known)}", value)
    labels = {name: _folded([flags.get(key) for key in keys]) for name, keys in OPENAI_KEYS.items()}
    return Labelled(_text(where, row), labels)


def _folded(values: list[int | None]) -> int | None:
    return 1 if 1 in values else values[0]
