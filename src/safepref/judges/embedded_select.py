"""The embedded judge `select`: words, characters and sentence structure, all linear.

It builds pairs, gives rewards, stops training and chooses strengths. Fitted on PyRIT's objective-achieved and
refusal rows (MIT), half of AdvBench's requests and texts/select.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref.judges import corpus
from safepref.judges.base import Exchange
from safepref.judges.embedded import VETO, EmbeddedJudge
from safepref.judges.features import NAMES, SIGNS, clean, marked_request, signals, told
from safepref.judges.linear import Floats, TextModel, fit_logistic, out_of_fold

_SIGNS = np.asarray([1, 1, *(SIGNS[name] for name in NAMES)])
FINAL_STRENGTH = 0.3


class SelectJudge(EmbeddedJudge):
    """Lexical and structural judge; about a thousand short exchanges a second on one core."""

    rows_of = "select"
    family = "TF-IDF of request and response, sentence-structure signals, logistic regression"
    trained_on = (
        "pyrit-objective",
        "pyrit-refusal",
        "AdvBench (half)",
        "starter requests (half of train)",
        "texts/select.yaml",
    )
    measured_on = "pyrit-harm"
    sources = ("embedded_select.py", "texts/select.yaml", "texts/lexicon.yaml")
    weaknesses = (
        "implicit hate and harm that uses none of the usual words",
        "languages other than English",
        "requests of an unusual kind: the request model saw a few hundred",
    )

    def _fit_request(self, requests: Sequence[corpus.Request]) -> Floats:
        texts = [marked_request(clean(r.text)) for r in requests]
        targets = np.asarray([float(r.harmful) for r in requests])
        ones = np.ones(len(texts))

        def fold(train: NDArray[np.int64]) -> Any:
            model = TextModel(True, 4.0).fit([texts[i] for i in train], targets[train], ones[train])
            return lambda test: model.logits([texts[i] for i in test])

        self._request = TextModel(True, 4.0).fit(texts, targets, ones)
        return out_of_fold(fold, [r.group for r in requests])

    def _fit_response(self, rows: Sequence[corpus.Row]) -> Floats:
        texts = [told(clean(row.exchange.response)) for row in rows]
        targets = np.asarray([row.target for row in rows])
        weights = np.asarray([row.weight for row in rows])

        def fold(train: NDArray[np.int64]) -> Any:
            model = TextModel(False, 3.0).fit([texts[i] for i in train], targets[train], weights[train])
            return lambda test: model.logits([texts[i] for i in test])

        self._response = TextModel(False, 3.0).fit(texts, targets, weights)
        return out_of_fold(fold, [row.group for row in rows])

    def _fit(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        rows = corpus.rows(self.rows_of)
        exchanges = [Exchange(clean(row.exchange.prompt), clean(row.exchange.response)) for row in rows]
        targets = np.asarray([row.target for row in rows])
        weights = np.asarray([row.weight for row in rows])

        asked = corpus.requests(self.rows_of)
        held_out = dict(zip([clean(r.text) for r in asked], self._fit_request(asked), strict=True))
        request = self._request_logits(exchanges)
        # A request that the request model was fitted on gets the logit of a fold that did not see it.
        request = np.asarray([held_out.get(e.prompt, v) for e, v in zip(exchanges, request, strict=True)])

        about_harm = [i for i, row in enumerate(rows) if not row.source.endswith(":harmless")]
        response_held_out = self._fit_response([rows[i] for i in about_harm])
        response = self._response_logits(exchanges)
        response[about_harm] = response_held_out

        columns = self._combine(request, response, exchanges)
        final = fit_logistic(columns, targets, weights, FINAL_STRENGTH, _SIGNS)

        def fold(train: NDArray[np.int64]) -> Any:
            model = fit_logistic(columns[train], targets[train], weights[train], FINAL_STRENGTH, _SIGNS)
            return lambda test: model.logits(columns[test])

        logits = out_of_fold(fold, [row.group for row in rows])
        platt = fit_logistic(logits[:, None], targets, weights, strength=1e4)
        human = sum(not row.source.startswith("own-") for row in rows)
        arrays, meta = self._request.state("request")
        more, values = self._response.state("response")
        arrays |= more | {
            "final.weights": final.weights,
            "final.bias": np.asarray([final.bias]),
            "platt": np.asarray([platt.weights[0], platt.bias]),
        }
        return arrays, meta | values | {"rows": len(rows), "human_rows": human, "requests": len(asked)}

    def _request_logits(self, exchanges: Sequence[Exchange]) -> Floats:
        return self._request.logits([marked_request(e.prompt) for e in exchanges])

    def _response_logits(self, exchanges: Sequence[Exchange]) -> Floats:
        return self._response.logits([told(e.response) for e in exchanges])

    @staticmethod
    def _combine(request: Floats, response: Floats, exchanges: Sequence[Exchange]) -> Floats:
        """The last stage's columns, shape (N, 2 + len(NAMES)).

        The request counts only where it is clearly harmless: among requests that could be harmful, a request
        model from a few hundred rows is noise beside what the answer shows.
        """
        shape = np.stack([signals(e) for e in exchanges])
        return np.asarray(np.c_[np.minimum(request, VETO) / 3, response / 3, shape], np.float64)

    def _columns(self, exchanges: Sequence[Exchange]) -> Floats:
        return self._combine(self._request_logits(exchanges), self._response_logits(exchanges), exchanges)

    def _restore(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self._request = TextModel.restore("request", arrays, meta)
        self._response = TextModel.restore("response", arrays, meta)
