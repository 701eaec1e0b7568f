"""Toxicity scores on disk: scored once by the same weights, again by others; what a bench says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_classifier import save_classifier

from safepref.judges.toxicity_cache import CachedToxicity, load_cached_toxicity
from safepref.judges.toxicity_models import DETOXIFY, TextClassifier
from safepref.pipeline.judging import Bench
from safepref.recipe import JudgeSection

TEXTS = ["you are kind", "you are a fool", "bad", "", "you are kind", "\ud800 a\u2028b"]
SIX = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFEPREF_CACHE", str(tmp_path / "cache"))
    return tmp_path


def load(folder: Path, label: str = "") -> CachedToxicity:
    made = load_cached_toxicity(f"hf:{folder}{label}")
    assert isinstance(made, CachedToxicity)
    return made


def marked(home: Path) -> None:
    """Mark what is on disk, to see where the next scores come from."""
    for path in (home / "cache/judgments").glob("*.jsonl"):
        rows = [json.loads(line) | {"score": 0.125} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_text_is_scored_once_and_as_the_model_itself_does(home: Path) -> None:
    folder = save_classifier(home / "model", SIX, "multi_label_classification")
    first = load(folder)
    made = first.score(TEXTS)
    assert made == pytest.approx(TextClassifier(str(folder)).score(TEXTS), abs=1e-6)
    assert made.dtype == np.float64 and made.shape == (6,) and first.score([]).shape == (0,)
    assert first.reuse() == {"asked": 6, "reused": 1, "rate": 0.1667}
    again = load(folder)
    assert again.score(TEXTS).tolist() == made.tolist()
    assert again.reuse() == {"asked": 6, "reused": 6, "rate": 1.0}
    assert (again.name, again.reads, again.card()) == (first.name, None, TextClassifier(str(folder)).card())


def test_other_weights_labels_and_functions_are_other_scores(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_classifier(home / "model", SIX)
    load(folder).score(TEXTS)
    marked(home)
    assert set(load(folder).score(TEXTS)) == {0.125}
    monkeypatch.setitem(DETOXIFY, "detoxify", str(folder))  # its labels do not exclude each other
    detoxify = load_cached_toxicity("detoxify")
    other = load(folder, "#insult")
    assert not {0.125} & {*detoxify.score(TEXTS), *other.score(TEXTS)}
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    changed = load(folder)
    assert 0.125 not in changed.score(TEXTS) and changed.reuse()["reused"] == 1


def test_a_broken_models_nan_and_torn_rows_are_not_kept(home: Path) -> None:
    folder = save_classifier(home / "model", SIX)
    load(folder).score(TEXTS)
    (path,) = (home / "cache/judgments").glob("*.jsonl")
    path.write_text(path.read_text()[:-30] + '\n[1]\n{"key": "x"}\n{"key": 1, "score": "y"}\n')
    assert load(folder).score(TEXTS).shape == (6,)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        broken = load(folder)
        assert np.isnan(broken.score(TEXTS)).all() and broken.reuse()["reused"] == 1


def test_a_bench_says_how_many_scores_were_re_used(home: Path) -> None:
    folder = save_classifier(home / "model", SIX)
    section = JudgeSection(select="keyword-refusal", report="keyword-refusal", toxicity=f"hf:{folder}")
    for reused in (0, 2):
        bench = Bench.load(section)
        bench.reporting().toxicity.score(["bad", "kind"])
        name = f"{folder}#toxic"
        assert bench.reuse() == {name: {"asked": 2, "reused": reused, "rate": reused / 2}}
        assert bench.say_reuse() == [f"{name}: {reused} of 2 judgments re-used ({reused / 2:.0%})"]
