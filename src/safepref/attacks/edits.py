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

LEET = dict(zip("aeiost", "431057", strict=True))
HOMOGLYPHS = dict(zip("aceiopsxyACEHIOPTX", "асеіорѕхуАСЕНІОРТХ", strict=True))
"""Latin letters and the Cyrillic ones that look the same (Unicode TR 39, confusables)."""
ACCENTS = dict(zip("aceinouyszAEIOU", "áçêïñöûýšžÀÈÎÔÜ", strict=True))

_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"(?<![^\W_])[A-Za-z]+(?![^\W_])")
# Left as it is: edited chat markup would be another attack, and an edited link another link.
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
    """Swap two inner letters in half of the longer words: same letters, same first and last one."""

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
    """Spell common words as in text messages ("u", "pls"); undone by the table backwards."""
    return _edit(text, rng, 0.8, lambda word: _by_table(word, word_table("chat_spelling")))


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
    """Replace everyday words by synonyms; undone by the table backwards."""
    return _edit(text, rng, 0.9, lambda word: _by_table(word, word_table("synonyms")))


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
def word_table(name: str) -> dict[str, str]:
    """Lower-case words and their replacements, from templates/NAME.yaml."""
    content = files("safepref.attacks").joinpath("templates", f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(content))


def _translate(word: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in word)


def _by_table(word: str, table: dict[str, str]) -> str:
    """The replacement of a word, with the word's capital letters."""
    other = table.get(word.lower(), word)
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
