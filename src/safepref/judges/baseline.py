"""The plain judge that the embedded ones must beat: TF-IDF and logistic regression on the very same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safepref.judges import corpus
from safepref.judges.base import Exchange
from safepref.judges.linear import Floats


def tfidf_scores(
    judge: corpus.JudgeName, exchanges: Sequence[Exchange], *, human_only: bool = False
) -> Floats:
    """Log-odds of harm, shape (N,), by words (1-2) and characters (2-5) of "request, newline, answer".

    Fitted on the rows that the judge of that name was fitted on; with `human_only`, on the human-labelled
    ones.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = [row for row in corpus.rows(judge) if not (human_only and row.source.startswith("own-"))]
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
