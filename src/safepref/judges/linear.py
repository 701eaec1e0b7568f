"""The small fitted parts of the embedded judges: TF-IDF, logistic regression, and their storage without
pickle.

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


def fit_logistic(
    features: Any, targets: Floats, weights: Floats, strength: float, signs: NDArray[np.int64] | None = None
) -> Linear:
    """Weighted logistic regression with soft targets in 0..1, both classes given equal weight.

    Minimises strength * sum_i w_i * cross-entropy(t_i, p_i) + |coefficients|^2 / 2, scikit-learn's form
    with C = `strength`. With `signs` (F,), a coefficient is held at or above 0 where the sign is +1, at or
    below 0 where it is -1, and is free at 0.
    """
    from scipy.optimize import minimize

    positive, negative = weights * targets, weights * (1 - targets)
    half = 0.5 * len(targets)
    positive, negative = positive * half / positive.sum(), negative * half / negative.sum()
    total = positive + negative

    def loss(parameters: Floats) -> tuple[float, Floats]:
        coefficients, bias = parameters[:-1], parameters[-1]
        logits = np.asarray(features @ coefficients).ravel() + bias
        value = strength * float((total * np.logaddexp(0, logits) - positive * logits).sum())
        residual = strength * (total * sigmoid(logits) - positive)
        gradient = np.r_[np.asarray(features.T @ residual).ravel() + coefficients, residual.sum()]
        return value + 0.5 * float(coefficients @ coefficients), gradient

    width = features.shape[1]
    bounds = None
    if signs is not None:
        bounds = [(0.0 if s > 0 else None, 0.0 if s < 0 else None) for s in signs] + [(None, None)]
    found = minimize(
        loss, np.zeros(width + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000}
    )
    return Linear(np.asarray(found.x[:-1]), float(found.x[-1]))


def out_of_fold(
    fit: Callable[[NDArray[np.int64]], Callable[[NDArray[np.int64]], Floats]],
    groups: Sequence[str],
    folds: int = 5,
) -> Floats:
    """Logits of every row by a model that saw no row of its group, shape (N,).

    `fit(train)` returns a function that gives the logits of the rows it is asked for.
    """
    from sklearn.model_selection import GroupKFold

    result = np.zeros(len(groups))
    for train, test in GroupKFold(folds).split(np.zeros(len(groups)), groups=list(groups)):
        result[test] = fit(train)(test)
    return result


# Words whose only news is how long a text is. Negations and pronouns stay: they carry refusals.
_STOP = [
    "the",
    "of",
    "a",
    "an",
    "to",
    "and",
    "in",
    "is",
    "are",
    "for",
    "that",
    "it",
    "as",
    "or",
    "be",
    "with",
    "on",
]


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


def fit_text(
    texts: Sequence[str],
    targets: Floats,
    weights: Floats,
    groups: Sequence[str],
    *,
    characters: bool,
    strength: float,
) -> tuple[TextModel, Floats]:
    """A fitted model, and the logits of its own texts by models that saw none of their group, (N,)."""

    def fold(train: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Floats]:
        some = [texts[i] for i in train]
        model = TextModel(characters, strength).fit(some, targets[train], weights[train])
        return lambda test: model.logits([texts[i] for i in test])

    return TextModel(characters, strength).fit(texts, targets, weights), out_of_fold(fold, groups)


def _vectorizers(characters: bool, vocabularies: list[list[str]] | None = None) -> list[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    known: Sequence[list[str] | None] = vocabularies or [None, None]
    made = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words=_STOP, vocabulary=known[0])]
    if characters:
        made.append(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, vocabulary=known[1])
        )
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
