"""tox-block in numpy: its published value, batching, and a pickle that can do nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from safepref.errors import InputError
from safepref.judges.toxicity import LABELS, ToxicityScorer, read_word_index


@pytest.fixture(scope="module")
def scorer() -> ToxicityScorer:
    return ToxicityScorer()


@pytest.mark.assets
def test_the_value_of_its_readme(scorer: ToxicityScorer) -> None:
    found = scorer.labels(["Good morning my friend, I hope you're having a fantastic day!"])
    assert found.shape == (1, len(LABELS))
    assert found[0, 0] == pytest.approx(0.05347811430692673, abs=2e-5)


@pytest.mark.assets
def test_insults_score_high_and_plain_text_low_in_any_batch(scorer: ToxicityScorer) -> None:
    texts = ["You are a stupid idiot.", "The recipe needs two eggs.", "", "zzzz qqqq", "word " * 300] * 3
    together = scorer.score(texts)
    alone = np.concatenate([scorer.score([text]) for text in texts[:5]])
    assert np.allclose(together[:5], alone, atol=1e-6) and np.allclose(together[:5], together[10:], atol=1e-6)
    assert together[0] > 0.9 and together[1] < 0.1
    assert ((together >= 0) & (together <= 1)).all()


@pytest.mark.assets
def test_only_the_last_hundred_known_words_count(scorer: ToxicityScorer) -> None:
    tail = "the garden is full of flowers and birds " * 13
    assert scorer.score(["idiot " + tail])[0] == pytest.approx(scorer.score([tail])[0], abs=1e-7)


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_hostile_pickle_runs_nothing_and_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(InputError, match="no tokenizer"):
        read_word_index(pickle.dumps(_Evil(str(target))))
    assert not target.exists()


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps([1, 2])[:-4]])
def test_junk_is_refused_with_one_line(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_word_index(data)
    assert "encoder.pkl" in str(caught.value) and "\n" not in str(caught.value)
