"""Composed refusals: varied, fitting, short, and apart from the over-refusals."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.pairs.refusals import load_refusals, over_refusal_for, refusal_for, shipped_refusals
from safepref.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
REFUSING = re.compile(
    r"\b(can't|won't|not able|not going|don't|no|not something|decline|refuse|turn (this|that|down)|"
    r"rather not|will not|not willing|not possible|not be right|not comfortable|out of the question|never|"
    r"too dangerous|outside of what)\b",
    re.IGNORECASE,
)


def prompt(name: str, category: str | None) -> Prompt:
    return Prompt(id=name, messages=({"role": "user", "content": "x"},), kind="harmful", category=category)


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.?!])\s+", text) if part]


def runs(text: str, width: int = 3) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)}


@pytest.mark.parametrize("macro", TAXONOMY.macro_ids)
def test_many_distinct_short_refusals_for_each_macro_category(macro: str) -> None:
    micros = [micro for micro in TAXONOMY.micro_ids if TAXONOMY.macro_of(micro) == macro]
    found = {refusal_for(prompt(f"{micro}-{at}", micro)) for micro in micros for at in range(60)}
    assert len(found) >= 60
    assert len({text.split()[0] for text in found}) >= 6
    for text in found:
        assert 14 <= len(text.split()) <= 45, text
        parts = sentences(text)
        assert len(parts) == len(set(parts)), text
        assert "{" not in text
        assert "  " not in text
        assert text[-1] in ".?!"
    assert sum(len(text.split()) for text in found) / len(found) < 34


@pytest.mark.parametrize("macro", [*TAXONOMY.macro_ids, "generic"])
def test_every_list_is_long_and_every_opening_refuses(macro: str) -> None:
    words = shipped_refusals().macros[macro]
    for lines in (words.openings, words.reasons, words.offers):
        assert len(lines) >= 12
        assert len(set(lines)) == len(lines)
    for line in words.openings:
        assert REFUSING.search(line), line
    assert not set(words.openings) & set(words.reasons) | set(words.reasons) & set(words.offers)


def test_all_combinations_fit_the_limits() -> None:
    for words in shipped_refusals().macros.values():
        topics = [phrase for phrases in words.topics.values() for phrase in phrases] or [""]
        for opening, topic in product(words.openings, topics):
            line = opening.replace("{topic}", topic)
            longest = max((*words.reasons,), key=len), max(words.offers, key=len)
            assert len(" ".join((line, *longest)).split()) <= 45, line


def test_every_micro_category_has_its_topics() -> None:
    for micro in TAXONOMY.micro_ids:
        words = shipped_refusals().macros[TAXONOMY.macro_of(micro)]
        assert len(words.topics[micro]) >= 3
        told = [refusal_for(prompt(f"t{at}", micro)) for at in range(40)]
        assert any(topic in text for text in told for topic in words.topics[micro])


def test_self_harm_refusals_care_and_point_to_help() -> None:
    words = shipped_refusals().macros["self_harm"]
    helping = re.compile(
        r"crisis line|emergency|doctor|counsellor|therapist|friend|someone|somebody|next hour"
    )
    for line in words.offers:
        assert helping.search(line), line
        assert not re.search(r"\d", line)


def test_a_refusal_is_a_function_of_id_category_and_seed() -> None:
    first = refusal_for(prompt("a", "crime_theft"), 1)
    assert first == refusal_for(prompt("a", "crime_theft"), 1)
    assert first == refusal_for(prompt("a", "Crime-Theft"), 1)
    assert len({refusal_for(prompt("a", "crime_theft"), seed) for seed in range(20)}) > 15
    assert refusal_for(prompt("a", "hate_poor"), 1) != first


@pytest.mark.parametrize("category", [None, "generic", "my own category", ""])
def test_unknown_categories_get_generic_wordings(category: str | None) -> None:
    words = shipped_refusals().macros["generic"]
    assert any(refusal_for(prompt("q", category)).startswith(line) for line in words.openings)


def test_macro_names_are_categories_too() -> None:
    text = refusal_for(prompt("q", "weapon"))
    assert any(text.endswith(line) for line in shipped_refusals().macros["weapon"].offers)


def test_over_refusals_share_no_phrases_with_refusals() -> None:
    shipped = shipped_refusals()
    assert len(shipped.over_openings) >= 12
    over = {over_refusal_for(prompt(f"o{at}", "crime_theft")) for at in range(400)}
    assert len(over) >= 60
    chosen: set[tuple[str, ...]] = set()
    for words in shipped.macros.values():
        topics = [phrase for phrases in words.topics.values() for phrase in phrases] or [""]
        for line in (*words.openings, *words.reasons, *words.offers):
            for topic in topics if "{topic}" in line else [""]:
                chosen |= runs(line.replace("{topic}", topic))
    for text in over:
        assert not runs(text) & chosen, (text, runs(text) & chosen)
        assert 8 <= len(text.split()) <= 30
        assert not re.match(r"(I|Sorry|No|That's|Unfortunately|My)\b", text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("refusals: 3", "refusals: must be a mapping, got 3"),
        ("refusals: {a: {openings: []}}", r"refusals.a.openings: must be a list of texts, got \[\]"),
        (
            "refusals: {a: {openings: ['{topic}'], reasons: [r], offers: [o]}}",
            "refusals.a.openings: every line",
        ),
        ("refusals: {a: {openings: [x], reasons: [r], offers: [o]}}", "refusals.generic: missing"),
        (
            "refusals: {generic: {openings: [x], reasons: [r], offers: [7]}}",
            r"refusals.generic.offers.*\[7\]",
        ),
        (
            "refusals: {generic: {openings: [x], reasons: [r], offers: [o]}}",
            "over_refusals: must be a mapping",
        ),
        ("a: [", "not YAML in UTF-8"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "refusals.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=problem) as caught:
        load_refusals(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        load_refusals(tmp_path / "absent.yaml")


def test_a_users_own_wordings(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "refusals:\n  generic: {openings: [No.], reasons: [Because.], offers: [Ask on.]}\n"
        "over_refusals: {openings: [Halt.], endings: [Bye.]}\n"
    )
    own = load_refusals(path)
    assert own.refusal(prompt("a", "crime_theft")) == "No. Because. Ask on."
    assert own.over_refusal(prompt("a", None)) == "Halt. Bye."
    assert own.short(prompt("a", "crime_theft")) == "No. Because."
