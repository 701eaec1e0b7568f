"""Seeded edits of a text's words that keep its meaning; each docstring says how to undo or bound the edit.

Letters are edited one by one and everything else (digits, emoji, combining marks, line breaks, markup) passes
as it is, so a text in another script or a special-token string comes through whole.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import yaml

LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
HOMOGLYPHS = {
    **{"a": "\u0430", "c": "\u0441", "e": "\u0435", "i": "\u0456", "o": "\u043e", "p": "\u0440"},
    **{"s": "\u0455", "x": "\u0445", "y": "\u0443", "A": "\u0410", "C": "\u0421", "E": "\u0415"},
    **{"H": "\u041d", "I": "\u0406", "O": "\u041e", "P": "\u0420", "T": "\u0422", "X": "\u0425"},
}
"""Latin letters and the Cyrillic ones that look the same (Unicode TR 39, confusables)."""
ACCENTS = {
    **{"a": "\u00e1", "c": "\u00e7", "e": "\u00ea", "i": "\u00ef", "n": "\u00f1", "o": "\u00f6"},
    **{"u": "\u00fb", "y": "\u00fd", "s": "\u0161", "z": "\u017e", "A": "\u00c0", "E": "\u00c8"},
    **{"I": "\u00ce", "O": "\u00d4", "U": "\u00dc"},
}
CHAT_SPELLING = {
    **{"you": "u", "your": "ur", "are": "r", "to": "2", "for": "4", "and": "n", "please": "pls"},
    **{"people": "ppl", "with": "wiv", "the": "da", "because": "cuz", "what": "wot", "how": "hao"},
    **{"message": "msg", "that": "dat", "this": "dis", "without": "w/o", "someone": "sum1", "some": "sum"},
    **{"write": "rite", "know": "kno", "make": "mak", "give": "giv", "tell": "tel", "explain": "xplain"},
}

_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"(?<![^\W_])[A-Za-z]+(?![^\W_])")
# Left as it is: chat markup would otherwise change what the text is an attack on, and a broken link its meaning.
_MARKUP = re.compile(r"<\|[^|<>]*\|>|</?\w+>|https?://\S+")


def _edit(
    text: str, rng: random.Random, share: float, edit: Callable[[str], str], pattern: re.Pattern[str] = _LATIN
) -> str:
    """Edit about `share` of the words that `edit` can change, and at least one of them."""
    kept = [match.span() for match in _MARKUP.finditer(text)]
    spans = [
        match.span()
        for match in pattern.finditer(text)
        if not any(start < match.end() and match.start() < end for start, end in kept)
    ]
    edited = [(start, end, edit(text[start:end])) for start, end in spans if not _joined(text, start, end)]
    edited = [(start, end, word) for start, end, word in edited if word != text[start:end]]
    drawn = [rng.random() for _ in edited]
    pieces, last = [], 0
    for (start, end, word), draw in zip(edited, drawn, strict=True):
        if draw < share or draw == min(drawn):
            pieces += [text[last:start], word]
            last = end
    return "".join([*pieces, text[last:]])


def _joined(text: str, start: int, end: int) -> bool:
    """Whether a combining mark or joiner stands at an edge: letters must not be torn from their marks."""
    return any(
        unicodedata.category(letter).startswith("M") or letter in "\u200c\u200d"
        for letter in (text[max(start - 1, 0) : start] + text[end : end + 1])
    )


def swap_letters(text: str, rng: random.Random) -> str:
    """Swap two neighbouring inner letters in half of the longer words: same letters, same first and last one."""

    def swap(word: str) -> str:
        if len(word) < 4:
            return word
        at = 1 + int(rng.random() * (len(word) - 3))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _edit(text, rng, 0.5, swap)


def leet(text: str, rng: random.Random) -> str:
    """Write digits for letters in half of the words; undone by reading them back."""
    return _edit(text, rng, 0.5, lambda word: _translate(word, LEET))


def case_noise(text: str, rng: random.Random) -> str:
    """Flip upper and lower case at random in all words; undone by ignoring case."""

    def noise(word: str) -> str:
        return "".join(letter.swapcase() if rng.random() < 0.4 else letter for letter in word)

    return _edit(text, rng, 1.0, noise)


def space_letters(text: str, rng: random.Random) -> str:
    """Put spaces between the letters of a third of the words, of any script; undone by removing spaces."""
    return _edit(text, rng, 0.34, " ".join, _WORD)


def chat_spelling(text: str, rng: random.Random) -> str:
    """Spell common words as in text messages ("u", "pls"); undone by the table CHAT_SPELLING."""
    return _edit(text, rng, 0.8, lambda word: _like(word, CHAT_SPELLING.get(word.lower(), word)))


def drop_vowels(text: str, rng: random.Random) -> str:
    """Leave out the inner vowels of half of the longer words; the consonants stay in order."""

    def drop(word: str) -> str:
        return word[0] + re.sub(r"[aeiou]", "", word[1:-1]) + word[-1] if len(word) > 3 else word

    return _edit(text, rng, 0.5, drop)


def add_accents(text: str, rng: random.Random) -> str:
    """Put accents on letters of most words; undone by removing diacritics (NFKD)."""
    return _edit(text, rng, 0.7, lambda word: _translate(word, ACCENTS))


def stutter(text: str, rng: random.Random) -> str:
    """Say a quarter of the words twice, in any script; undone by removing the repeats."""
    return _edit(text, rng, 0.25, lambda word: f"{word} {word}", _WORD)


def synonyms(text: str, rng: random.Random) -> str:
    """Replace everyday words by synonyms; undone by reading templates/synonyms.yaml backwards."""
    return _edit(text, rng, 0.9, lambda word: _like(word, synonym_table().get(word.lower(), word)))


def homoglyphs(text: str, rng: random.Random) -> str:
    """Put look-alike Cyrillic letters into a third of the words; undone by the table HOMOGLYPHS."""
    return _edit(text, rng, 0.34, lambda word: _translate(word, HOMOGLYPHS))


def double_letters(text: str, rng: random.Random) -> str:
    """Double one letter in half of the words; undone by collapsing repeats."""

    def double(word: str) -> str:
        at = int(rng.random() * len(word))
        return word[: at + 1] + word[at:] if len(word) > 2 else word

    return _edit(text, rng, 0.5, double)


def punctuation_noise(text: str, rng: random.Random) -> str:
    """Put a stray mark behind a third of the words, of any script; undone by removing `. , ; : * ~`."""
    marks = ".,;:*~"
    return _edit(text, rng, 0.34, lambda word: word + marks[int(rng.random() * len(marks))], _WORD)


@cache
def synonym_table() -> dict[str, str]:
    """Lower-case words and their replacements."""
    content = files("safepref.attacks").joinpath("templates", "synonyms.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(content))


def _translate(word: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in word)


def _like(word: str, other: str) -> str:
    """`other` with the capital letters of `word`."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
