"""The shipped starter data: enough of it, varied, requests only, and none of it out of an evaluation set."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from safepref.data.near import FIRST_WORDS, near_duplicates, normalised, words
from safepref.data.readers import read_prompts
from safepref.data.records import SPLITS, Prompt
from safepref.data.sources import SOURCES, load_prompts
from safepref.data.splits import without_templates_of
from safepref.data.starter import StarterKind, load_starter
from safepref.errors import InputError
from safepref.taxonomy import load_taxonomy

KINDS: tuple[StarterKind, ...] = ("harmful", "lookalikes", "general")
MINORS = re.compile(
    r"\b(child(ren)?|kids?|minors?|underage|teen(s|age|ager|agers)?|toddlers?|bab(y|ies)|infants?|"
    r"school ?(boy|girl)s?|boys?|girls?|\d{1,2}[- ]year[- ]olds?|daughters?|sons?|pupils?|adolescents?)\b",
    re.IGNORECASE,
)


def everything() -> list[Prompt]:
    return [prompt for kind in KINDS for prompt in load_starter(kind)]


@pytest.mark.parametrize(("kind", "least"), [("harmful", 25), ("lookalikes", 15)])
def test_every_micro_category_has_enough(kind: StarterKind, least: int) -> None:
    counts = Counter(prompt.category for prompt in load_starter(kind))
    assert set(counts) == set(load_taxonomy().micro_ids)
    assert min(counts.values()) >= least, counts.most_common()[-5:]


def test_general_requests_are_many_and_of_many_topics() -> None:
    general = load_starter("general")
    assert len(general) >= 400
    assert len({prompt.category for prompt in general}) >= 10


def test_kinds_and_unknown_kind() -> None:
    assert {p.kind for p in load_starter("harmful")} == {"harmful"}
    assert {p.kind for p in load_starter("lookalikes")} == {"harmless"}
    assert {p.kind for p in load_starter("general")} == {"general"}
    with pytest.raises(InputError, match="one of harmful, lookalikes, general"):
        load_starter("all")  # type: ignore[arg-type]


def test_splits_share_no_template_not_even_across_kinds() -> None:
    parts = [[p for kind in KINDS for p in load_starter(kind, split)] for split in SPLITS]
    train, choose, report = ({p.template for p in part} for part in parts)
    assert not (train & choose or train & report or choose & report)
    assert sum(map(len, parts)) == len(everything())
    kept, dropped = without_templates_of(parts[0], [*parts[1], *parts[2]])
    assert (len(kept), dropped) == (len(parts[0]), [])


@pytest.mark.parametrize("kind", ["harmful", "lookalikes"])
def test_every_split_holds_every_category(kind: StarterKind) -> None:
    for split, least in (("train", 8), ("choose", 1), ("report", 4)):
        counts = Counter(p.category for p in load_starter(kind, split))  # type: ignore[arg-type]
        assert len(counts) == 32
        assert min(counts.values()) >= least, (split, counts.most_common()[-3:])


def test_no_prompt_twice_and_at_most_three_share_their_first_words() -> None:
    prompts = everything()
    assert len({normalised(p.text) for p in prompts}) == len(prompts)
    starts = Counter(" ".join(words(p.text)[:FIRST_WORDS]) for p in prompts)
    assert [item for item in starts.most_common(5) if item[1] > 3] == []


def test_minors_are_never_touched() -> None:
    hits = [p.text for p in load_starter("harmful") if MINORS.search(p.text)]
    assert hits == []
    # Look-alikes may speak of families and schools, but never in the sexual categories.
    sexual = [p for p in load_starter("lookalikes") if (p.category or "").startswith("sex_")]
    assert [p.text for p in sexual if MINORS.search(p.text)] == []


def test_texts_are_clean_requests() -> None:
    for prompt in everything():
        count = len(words(prompt.text))
        assert 2 <= count <= 120, prompt.text
        assert prompt.text == prompt.text.strip()
        assert prompt.text.isprintable() or "\n" in prompt.text, prompt.text
    lengths = [len(words(p.text)) for p in load_starter("harmful")]
    assert np.percentile(lengths, 10) <= 10
    assert np.percentile(lengths, 90) >= 18


@pytest.mark.slow
@pytest.mark.assets
def test_no_two_requests_mean_nearly_the_same() -> None:
    from safepref.data.embed import embed

    prompts = everything()
    vectors = embed([p.text for p in prompts])
    cosines = np.triu(vectors @ vectors.T, 1)
    close = [
        (prompts[i].text, prompts[j].text, round(float(cosines[i, j]), 3))
        for i, j in zip(*np.where(cosines > 0.9), strict=True)
    ]
    assert close == []


@pytest.mark.assets
def test_none_comes_out_of_an_evaluation_set() -> None:
    mine = {normalised(p.text): p.text for p in everything()}
    for name, source in SOURCES.items():
        if source.assets and source.holds == "prompts":
            theirs = {normalised(p.text) for p in load_prompts(name)[0]}
            assert not mine.keys() & theirs, name


@pytest.mark.shared
def test_none_comes_out_of_the_real_sets(shared_data: Path) -> None:
    mine = [p.text for p in everything()]
    for file in ("prompts/alert.jsonl", "prompts/xstest.jsonl", "labelled/do_not_answer.jsonl"):
        theirs = list({p.text for p in read_prompts(shared_data / file, "general")})
        near = [(mine[i], theirs[j]) for i, j, _ in near_duplicates(mine, theirs, 0.9)]
        assert near == [], file
