"""Whether an answer is in English, which is all that the embedded judges read, or in a model's languages.

They say nothing of other languages, so that such an answer is unscored and not harmless. Only clear evidence
counts: most letters in another script, or the function words of another language and hardly any of English.
Garbled English, code, base64, leetspeak and letters swapped for look-alikes are no other language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib import resources

import yaml

from safepref.judges.degenerate import degenerate
from safepref.judges.features import clean

SCRIPT_SHARE = 0.5
"""Share of letters in other scripts from which a text is not English."""
WORD_HITS = 3
"""Fewest different function words of another language that count as evidence."""
WORD_SHARE = 0.2
"""Share of all words that they must make up."""
OVER_ENGLISH = 2
"""How many times as many as English ones they must be."""

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_ENGLISH = "English"
ENGLISH_ONLY = (_ENGLISH,)
_WRITTEN_IN = {"Russian": "Cyrillic"}
"""The script of a language that has no table of function words here."""


def foreign(response: str, reads: Sequence[str] = ENGLISH_ONLY) -> str:
    """Why a response cannot be read ("" if it can), such as "not English (Japanese script)".

    Args:
        reads: languages that are read, by their English names, English among them.
    """
    found = _WORD.findall(clean(response))
    if not found:
        return ""
    script = _script(found)
    language = "" if script else _language(found)
    if not script and not language:
        return ""
    if language in reads or any(script and _WRITTEN_IN.get(name) == script for name in reads):
        return ""
    what = "not English" if len(reads) == 1 else f"none of the {len(reads)} languages that are read"
    return f"{what} ({script} script)" if script else f"{what} ({language})"


def unreadable(response: str) -> str:
    """Why an embedded judge says nothing of a response ("" if it does): degenerate, or not English."""
    return degenerate(response) or foreign(response)


def _script(found: list[str]) -> str:
    """The script of most letters where that is not Latin.

    A word with any Latin letter counts as Latin: other letters in it are look-alikes.
    """
    counts: dict[str, int] = {}
    for word in found:
        scripts = [_script_of(letter) for letter in word if letter.isalpha()]
        name = "LATIN" if "LATIN" in scripts else (scripts or ["LATIN"])[0]
        counts[name] = counts.get(name, 0) + len(scripts)
    other = {name: count for name, count in counts.items() if name != "LATIN"}
    if sum(other.values()) <= SCRIPT_SHARE * sum(counts.values()):
        return ""
    if "HIRAGANA" in other or "KATAKANA" in other:  # Japanese has Chinese characters too
        return "Japanese"
    name = max(other, key=lambda script: (other[script], script))
    return {"CJK": "Chinese", "HANGUL": "Korean"}.get(name, name.capitalize())


@cache
def _script_of(letter: str) -> str:
    """The script by the first word of a letter's name, which is how Unicode names letters."""
    return unicodedata.name(letter, "LATIN").split()[0]


def _language(found: list[str]) -> str:
    """The language of which the words are, where that is another one than English.

    Words that begin with a capital are no evidence of another language: "Los" and "Las" are parts of names.
    """
    tables = _tables()
    english = sum(_plain(word.lower()) in tables[_ENGLISH] for word in found)
    small = [word.lower() for word in found if word.islower() or word.isupper()]
    hits = {
        name: [word for word in small if word in table or _plain(word) in table]
        for name, table in tables.items()
        if name != _ENGLISH
    }
    name = max(hits, key=lambda language: (len(hits[language]), language))
    count = len(hits[name])
    enough = len(set(hits[name])) >= WORD_HITS and count >= WORD_SHARE * len(found)
    return name if enough and count > OVER_ENGLISH * english else ""


@cache
def _tables() -> dict[str, frozenset[str]]:
    """Function words by language; those of English are in no other table."""
    text = (
        resources.files("safepref.judges").joinpath("texts/function_words.yaml").read_text(encoding="utf-8")
    )
    words = {name: set(str(line).split()) for name, line in yaml.safe_load(text).items()}
    english = words.pop(_ENGLISH)
    tables = {_ENGLISH: frozenset(english)}
    for name, own in words.items():
        tables[name] = frozenset((own | {_plain(word) for word in own}) - english)
    return tables


@cache
def _plain(word: str) -> str:
    """A word without the marks on its letters."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
