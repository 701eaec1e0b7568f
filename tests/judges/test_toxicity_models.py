"""Toxicity by text-classification models: tiny random ones, against transformers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_classifier import save_classifier
from transformers import pipeline

from safepref.errors import InputError
from safepref.judges import toxicity_models
from safepref.judges.toxicity_models import DETOXIFY, TextClassifier, check_toxicity, load_toxicity

TEXTS = ["you are kind", "you are a fool " * 60, "bad", "", "kind kind fool é"]
SIX = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


@pytest.mark.parametrize(
    ("labels", "problem", "label", "function"),
    [
        (SIX, "multi_label_classification", "toxic", "sigmoid"),
        (["neutral", "hate"], None, "hate", "softmax"),
        (["LABEL_0"], None, "LABEL_0", "sigmoid"),
    ],
)
def test_scores_are_those_of_transformers_own_pipeline(
    labels: list[str], problem: str | None, label: str, function: str, tmp_path: Path
) -> None:
    folder = save_classifier(tmp_path, labels, problem)
    scorer = load_toxicity(f"hf:{folder}")
    assert isinstance(scorer, TextClassifier) and scorer.name == f"{folder}#{label}"
    own: Any = pipeline("text-classification", model=str(folder), device="cpu")
    given = own(TEXTS, top_k=None, function_to_apply=function, truncation=True, max_length=64)
    expected = [next(row["score"] for row in rows if row["label"] == label) for rows in given]
    assert scorer.score(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert len(scorer.score([])) == 0 and scorer.card()["judge"] == scorer.name


def test_a_label_can_be_named_and_must_be_where_none_is_meant(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(InputError, match=r"none of its labels LABEL_0, LABEL_1; give hf:.*#LABEL") as caught:
        load_toxicity(f"hf:{folder}")
    assert "\n" not in str(caught.value)
    first, second = (load_toxicity(f"hf:{folder}#LABEL_{at}").score(TEXTS) for at in (0, 1))
    assert first + second == pytest.approx([1.0] * len(TEXTS))


def test_detoxify_is_read_from_its_makers_published_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its labels do not exclude each other, whatever the configuration says.
    monkeypatch.setitem(DETOXIFY, "detoxify", str(save_classifier(tmp_path, SIX)))
    scorer = load_toxicity("detoxify")
    assert isinstance(scorer, TextClassifier)
    assert scorer.score(TEXTS) == pytest.approx(
        TextClassifier(str(tmp_path), exclusive=False).score(TEXTS), abs=1e-7
    )
    assert scorer.score(TEXTS) != pytest.approx(TextClassifier(str(tmp_path)).score(TEXTS), abs=1e-3)


def test_the_card_names_the_weights_whatever_was_scored_before(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, SIX)
    fresh, used = TextClassifier(str(folder)), TextClassifier(str(folder))
    used.score(TEXTS)
    card = used.card()
    assert card == fresh.card() and card["reads"] is None
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert TextClassifier(str(folder)).card()["model_sha256"] != card["model_sha256"]


def test_names_that_stand_for_nothing_are_one_clear_line(tmp_path: Path) -> None:
    for name in ("detoxfy", "hf:", "hf:#toxic", "unitary/toxic-bert"):
        with pytest.raises(InputError, match="give tox-block, detoxify"):
            check_toxicity(name)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_toxicity(f"hf:{tmp_path}/none")
    assert "\n" not in str(caught.value)
    for name in (toxicity_models.EMBEDDED, *DETOXIFY, "hf:a/b#toxic"):
        check_toxicity(name)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, SIX)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load_toxicity(f"hf:{folder}")
