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
from safepref.judges.embedded import EmbeddedJudge, LastStage
from safepref.judges.features import NAMES, SIGNS, clean, marked_request, signals, told
from safepref.judges.linear import Floats, TextModel, fit_text

VETO = -1.0
"""Log-odds of a harmful request above which the request no longer counts."""


class SelectJudge(EmbeddedJudge):
    """Lexical and structural judge; about a thousand short exchanges a second on one core."""

    rows_of = "select"
    family = "TF-IDF of request and response, sentence-structure signals, logistic regression; P(refusal)"
    trained_on = (
        "pyrit-objective",
        "pyrit-refusal",
        "AdvBench (half)",
        "texts/select.yaml",
        "texts/select_exchanges.jsonl",
    )
    measured_on = "pyrit-harm"
    strength = 0.3
    signs = np.asarray([1, 1, *(SIGNS[name] for name in NAMES)])
    sources = ("embedded_select.py", "texts/select.yaml", "texts/select_exchanges.jsonl")
    weaknesses = (
        "implicit hate, falsehoods told as facts, and harm that uses none of the usual words",
        "languages other than English",
        "requests of an unusual kind: the request model saw a few hundred",
    )

    def _fit_request(self, requests: Sequence[corpus.Request]) -> Floats:
        texts = [marked_request(clean(r.text)) for r in requests]
        targets = np.asarray([float(r.harmful) for r in requests])
        ones = np.ones(len(texts))
        groups = [r.group for r in requests]
        self._request, held_out = fit_text(texts, targets, ones, groups, characters=True, strength=4.0)
        return held_out

    def _fit_response(self, rows: Sequence[corpus.Row]) -> Floats:
        texts = [told(clean(row.exchange.response)) for row in rows]
        targets = np.asarray([row.target for row in rows])
        weights = np.asarray([row.weight for row in rows])
        groups = [row.group for row in rows]
        self._response, held_out = fit_text(texts, targets, weights, groups, characters=False, strength=3.0)
        return held_out

    def _fit_columns(
        self, rows: Sequence[corpus.Row], exchanges: Sequence[Exchange], request: Floats
    ) -> LastStage:
        about_harm = [i for i, row in enumerate(rows) if not row.source.endswith(":harmless")]
        held_out = self._fit_response([rows[i] for i in about_harm])
        response = self._response_logits(exchanges)
        response[about_harm] = held_out
        return LastStage(
            self._combine(request, response, exchanges),
            np.asarray([row.target for row in rows]),
            np.asarray([row.weight for row in rows]),
            [row.group for row in rows],
            exchanges,
        )

    def _arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, meta = self._request.state("request")
        more, values = self._response.state("response")
        return arrays | more, meta | values

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
