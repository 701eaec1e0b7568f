"""The small fitted parts of the embedded judges: TF-IDF, logistic regression, and their storage without pickle.

Fitting uses scikit-learn; what is kept is plain arrays (safetensors) and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import spmatrix

from safepref.store import atomic_write, read_json, write_json

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), safe for large |x|."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float64)


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted logistic regression: `weights` (F,) and `bias`."""

    weights: Floats
    bias: float

    def logits(self, features: Any) -> Floats:
        """Log-odds, shape (N,), for dense or sparse features (N, F)."""
        return np.asarray(features @ self.weights + self.bias, np.float64).ravel()


def fit_logistic(features: Any, targets: Floats, weights: Floats, strength: float) -> Linear:
    """Weighted logistic regression with soft targets in 0..1.

    A target t counts as a positive row of weight t and a negative one of weight 1 - t, which is the cross-entropy
    with soft labels. `strength` is scikit-learn's C (larger is less regularised). The two classes are balanced.
    """
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression

    positive, negative = targets > 0, targets < 1
    parts = [features[positive], features[negative]]
    stacked = vstack(parts).tocsr() if issparse(features) else np.vstack(parts)
    labels = np.r_[np.ones(positive.sum()), np.zeros(negative.sum())]
    each = np.r_[(weights * targets)[positive], (weights * (1 - targets))[negative]]
    for label in (0, 1):
        each[labels == label] *= 0.5 * len(targets) / each[labels == label].sum()
    model = LogisticRegression(C=strength, max_iter=3000).fit(stacked, labels, sample_weight=each)
    return Linear(np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))


def out_of_fold(
    fit: Callable[[NDArray[np.int64]], Callable[[NDArray[np.int64]], Floats]], groups: Sequence[str], folds: int = 5
) -> Floats:
    """Logits of every row by a model that saw no row of its group, shape (N,).

    `fit(train)` returns a function that gives the logits of the rows it is asked for.
    """
    from sklearn.model_selection import GroupKFold

    result = np.zeros(len(groups))
    for train, test in GroupKFold(folds).split(np.zeros(len(groups)), groups=list(groups)):
        result[test] = fit(train)(test)
    return result


class TextModel:
    """TF-IDF over words (1-2) and, if asked, characters (3-5), with a logistic regression on top."""

    def __init__(self, characters: bool, strength: float) -> None:
        self.characters = characters
        self.strength = strength
        self._vectorizers: list[Any] = []
        self._linear: Linear | None = None

    def fit(self, texts: Sequence[str], targets: Floats, weights: Floats) -> TextModel:
        """Fit on texts with soft targets; returns itself."""
        self._vectorizers = _vectorizers(self.characters)
        for vectorizer in self._vectorizers:
            vectorizer.fit(texts)
        self._linear = fit_logistic(self._matrix(texts), targets, weights, self.strength)
        return self

    def _matrix(self, texts: Sequence[str]) -> spmatrix:
        from scipy.sparse import hstack

        return hstack([vectorizer.transform(texts) for vectorizer in self._vectorizers]).tocsr()

    def logits(self, texts: Sequence[str]) -> Floats:
        """Log-odds of the positive class, shape (N,)."""
        assert self._linear is not None
        return self._linear.logits(self._matrix(texts))

    def state(self, prefix: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON values that `restore` needs, their names prefixed."""
        assert self._linear is not None
        arrays: dict[str, NDArray[Any]] = {
            f"{prefix}.weights": self._linear.weights,
            f"{prefix}.bias": np.asarray([self._linear.bias]),
        }
        vocabularies = []
        for i, vectorizer in enumerate(self._vectorizers):
            arrays[f"{prefix}.idf{i}"] = np.asarray(vectorizer.idf_, np.float64)
            vocabularies.append(sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__))
        meta = {"characters": self.characters, "strength": self.strength, "vocabularies": vocabularies}
        return arrays, {prefix: meta}

    @classmethod
    def restore(cls, prefix: str, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> TextModel:
        """The model that `state` described."""
        values = meta[prefix]
        model = cls(values["characters"], values["strength"])
        model._vectorizers = _vectorizers(model.characters, values["vocabularies"])
        for i, vectorizer in enumerate(model._vectorizers):
            vectorizer.idf_ = arrays[f"{prefix}.idf{i}"]
        model._linear = Linear(arrays[f"{prefix}.weights"], float(arrays[f"{prefix}.bias"][0]))
        return model


def _vectorizers(characters: bool, vocabularies: list[list[str]] | None = None) -> list[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = vocabularies or [None, None]
    made = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=known[0])]
    if characters:
        made.append(TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, vocabulary=known[1]))
    return made


def save_state(folder: Path, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
    """Write arrays.safetensors and meta.json atomically, the JSON last: its presence means a whole state."""
    from safetensors.numpy import save

    with atomic_write(folder / "arrays.safetensors", "wb") as stream:
        stream.write(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    write_json(folder / "meta.json", meta)


def load_state(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """What `save_state` wrote, or None where nothing whole is there."""
    from safetensors.numpy import load_file

    if not (folder / "meta.json").exists():
        return None
    return load_file(folder / "arrays.safetensors"), json.loads(json.dumps(read_json(folder / "meta.json")))
