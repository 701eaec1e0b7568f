"""The plain judge that the embedded ones must beat: TF-IDF and logistic regression on the very same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from safepref.judges import corpus
from safepref.judges.base import Exchange
from safepref.judges.linear import Floats

FittedOn = Literal["same", "human", "pyrit", "pyrit-harm"]
"""The rows of a judge, the human-labelled ones of them, all of PyRIT's labels, or those without refusals."""


def baseline_rows(judge: corpus.JudgeName, fitted_on: FittedOn) -> list[corpus.Row]:
    """What the plain judge beside the embedded one of that name is fitted on."""
    if fitted_on == "same":
        return list(corpus.rows(judge))
    names: tuple[corpus.JudgeName, ...] = (judge,) if fitted_on == "human" else ("select", "report")
    human = [row for name in names for row in corpus.rows(name) if not row.source.startswith("own-")]
    if fitted_on == "pyrit-harm":
        human = [row for row in human if not row.source.startswith("pyrit-refusal")]
    return human


def tfidf_scores(rows: Sequence[corpus.Row], exchanges: Sequence[Exchange]) -> Floats:
    """Log-odds of harm, shape (N,), by words (1-2) and characters (2-5) of "request, newline, answer"."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizers = [
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
    ]
    texts = [f"{row.exchange.prompt}\n{row.exchange.response}" for row in rows]
    features = hstack([vectorizer.fit_transform(texts) for vectorizer in vectorizers]).tocsr()
    model = LogisticRegression(C=10, max_iter=2000).fit(features, [row.target >= 0.5 for row in rows])
    asked = [f"{e.prompt}\n{e.response}" for e in exchanges]
    found = hstack([vectorizer.transform(asked) for vectorizer in vectorizers]).tocsr()
    return np.asarray(model.decision_function(found), np.float64)
