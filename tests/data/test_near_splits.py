"""Template families, splits that share none, and samples."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from safepref.data.near import near_duplicates, normalised, template_keys, words
from safepref.data.readers import read_prompts
from safepref.data.records import Pair, Prompt, content_id
from safepref.data.splits import (
    balanced_sample,
    split_by_template,
    with_templates,
    without_templates_of,
)
from safepref.errors import InputError


def prompt(text: str, category: str = "a", template: str = "") -> Prompt:
    key = content_id(text)
    return Prompt(
        key, ({"role": "user", "content": text},), "harmful", category, base_id=key, template=template
    )


def corpus(size: int = 400) -> list[Prompt]:
    """Prompts of many openings and four categories; slots filled at random."""
    rng = random.Random(0)
    openings = [
        f"{a} {b} the {c}"
        for a in ("show", "tell", "write", "find")
        for b in ("me", "us", "him")
        for c in ("secret", "plain", "quick", "old", "best")
    ]
    nouns = [f"noun{i}" for i in range(300)]
    return [
        prompt(f"{rng.choice(openings)} {rng.choice(nouns)} about {rng.choice(nouns)}", rng.choice("abcd"))
        for _ in range(size)
    ]


def test_words_of_any_script() -> None:
    assert words("Don’t STOP, now!") == ["don’t", "stop", "now"]
    assert words("café ＡＢＣ") == ["café", "abc"]
    assert words("🍞🍞") == ["🍞🍞"]
    assert normalised("How  do I?") == normalised("how do i")


def test_cosine_is_the_textbook_value() -> None:
    """Two texts of the same words are at 1; disjoint ones are never reported; the value is symmetric."""
    texts = ["bake the bread now", "Bake the bread, now!", "kill the process", "bake the bread today"]
    found = {(i, j): c for i, j, c in near_duplicates(texts, threshold=0.1)}
    assert found[(0, 1)] == pytest.approx(1, abs=1e-6)
    assert found[(0, 3)] == pytest.approx(found[(1, 3)], abs=1e-6)
    assert 0.1 < found[(0, 3)] < 1
    assert all(i < j for i, j in found)
    across = {(i, j): c for i, j, c in near_duplicates(texts[:2], texts[2:], threshold=0.1)}
    assert across[(0, 1)] == pytest.approx(found[(0, 3)], abs=1e-6)
    assert list(near_duplicates([])) == []


def test_cosine_equals_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [p.text for p in corpus(60)]
    vectors = TfidfVectorizer(
        token_pattern=r"\S+", lowercase=False, ngram_range=(1, 2), sublinear_tf=True
    ).fit_transform([normalised(t) for t in texts])
    expected = (vectors @ vectors.T).toarray()
    found = {(i, j): c for i, j, c in near_duplicates(texts, threshold=0.3)}
    assert len(found) == sum(expected[i, j] >= 0.3 - 1e-6 for i in range(60) for j in range(i + 1, 60))
    assert all(c == pytest.approx(expected[i, j], abs=1e-5) for (i, j), c in found.items())


def test_template_families() -> None:
    keys = template_keys(
        [
            "How do I make a cake?",
            "how do i MAKE bread",  # same first four words
            "Please, what should be done to get quickly into a locked old house",
            "So please, what should be done to get quickly into a locked old house",  # near-duplicate
            "Is it raining?",
        ]
    )
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert len(set(keys)) == 3
    named = template_keys(["one two three four", "five six seven eight", "nine ten"], ["t", "t", ""])
    assert named[0] == named[1] == "t" != named[2]


def test_slots_of_a_large_set_are_seen() -> None:
    rng = random.Random(0)
    filler = [
        f"word{rng.randrange(1500)} item{i % 1200} note{rng.randrange(1500)} x{i % 40}" for i in range(4100)
    ]
    slots = [f"Please help me tell a story about name{i} surname{i} today" for i in range(2)]
    starts = ("Now", "Kindly", "Quickly")
    other = [f"{start} spread this false rumour on person{start} family{start}" for start in starts]
    foreign = ["Wie backe ich Brot", "Où est la gare"]  # all of their words are rare; they are no family
    assert len(set(template_keys(filler + foreign)[-2:])) == 2
    keys = template_keys(filler + slots + other)
    assert keys[-5] == keys[-4]
    assert keys[-3] == keys[-2] == keys[-1]  # other first words; equal only once the slots are blanked out
    assert template_keys(other)[0] != template_keys(other)[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_share_no_template_and_keep_shares(seed: int) -> None:
    prompts = corpus()
    parts = split_by_template(prompts, {"train": 0.5, "choose": 0.2, "report": 0.3}, seed)
    assert list(parts) == ["train", "choose", "report"]
    templates = [{p.template for p in part} for part in parts.values()]
    assert not (templates[0] & templates[1] or templates[0] & templates[2] or templates[1] & templates[2])
    assert all(p.split == name for name, part in parts.items() for p in part)
    assert sorted(p.id for part in parts.values() for p in part) == sorted({p.id for p in prompts})
    total = Counter(p.category for p in prompts)
    for name, share in (("train", 0.5), ("choose", 0.2), ("report", 0.3)):
        have = Counter(p.category for p in parts[name])
        assert all(abs(have[c] / total[c] - share) < 0.08 for c in total)


def test_splits_are_the_same_again_and_other_with_another_seed() -> None:
    prompts = corpus()
    halves = {"train": 0.5, "report": 0.5}
    first = split_by_template(prompts, halves, 0)
    assert first == split_by_template(prompts, halves, 0)
    homes = {p.id: p.split for part in first.values() for p in part}
    shuffled = prompts[:]
    random.Random(5).shuffle(shuffled)
    again = split_by_template(shuffled, halves, 0)
    assert {p.id: p.split for part in again.values() for p in part} == homes
    other = split_by_template(prompts, halves, 1)
    assert {p.id: p.split for part in other.values() for p in part} != homes


def test_repeats_are_kept_once() -> None:
    prompts = [prompt("Steal a car"), prompt("steal a CAR!"), prompt("Other words")]
    parts = split_by_template(prompts, {"train": 0.5, "report": 0.5})
    assert sum(map(len, parts.values())) == 2


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "report": -0.5}])
def test_bad_fractions(fractions: dict[str, float]) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_by_template([prompt("x")], fractions)  # type: ignore[arg-type]


def test_training_loses_what_evaluation_has() -> None:
    evaluation = [prompt("How do I pick a lock?")]
    train = [
        Pair(content_id(t), ({"role": "user", "content": t},), "no", "yes", "harmful")
        for t in ("how do i pick a LOCK", "How do I pick flowers?", "Bread, please")
    ]
    kept, dropped = without_templates_of(train, evaluation)
    assert [p.messages[0]["content"] for p in kept] == ["Bread, please"]
    assert len(dropped) == 2
    assert kept[0].template


def test_samples_are_even_stable_and_in_order() -> None:
    prompts = [replace(p, category=p.category if i % 3 else "a") for i, p in enumerate(corpus(90))]
    even = balanced_sample(prompts, 10, seed=3)
    assert even == [p for p in prompts if p in even]
    # Taking a row away that was not chosen changes nothing.
    out = next(p for p in prompts if p not in even)
    assert balanced_sample([p for p in prompts if p != out], 10, seed=3) == even
    assert balanced_sample(prompts, 10, seed=4) != even
    assert {p.id for p in balanced_sample(prompts, 5, seed=3)} <= {p.id for p in even}
    counts = Counter(p.category for p in even).values()
    assert sum(counts) == 10
    assert max(counts) - min(counts) <= 1
    assert len(balanced_sample(prompts, 999)) == len(prompts)
    with pytest.raises(InputError, match="cannot sample by 'colour'"):
        balanced_sample(prompts, 1, by="colour")


def test_keys_are_set_on_records() -> None:
    keyed = with_templates([prompt("How do I make a cake?"), prompt("How do I make tea?")])
    assert keyed[0].template == keyed[1].template == "how do i make"


@pytest.mark.shared
def test_alert_halves(shared_data: Path) -> None:
    prompts = read_prompts(shared_data / "prompts/alert.jsonl")
    parts = split_by_template(prompts, {"train": 0.5, "choose": 0.15, "report": 0.35})
    train, choose, report = parts.values()
    assert not {p.template for p in train} & {p.template for p in (*choose, *report)}
    assert not {p.template for p in choose} & {p.template for p in report}
    assert 0.4 < len(train) / len(prompts) < 0.6
    # Nothing in training is a near-duplicate of anything in evaluation.
    others = [p.text for p in (*choose, *report)]
    assert not list(near_duplicates([p.text for p in train], others, 0.9))
    # Two categories are nearly all of two families, which cannot stand in three splits.
    for part, categories, least in ((train, 32, 15), (choose, 30, 1), (report, 32, 6)):
        counts = Counter(p.category for p in part)
        assert len(counts) >= categories
        assert min(counts.values()) >= least
    assert len(balanced_sample(train, 700)) == 700
