"""The embedded judges `support.select` and `support.report`: is a reply in a support dialogue good or bad?

Both answer P(bad) as a logistic regression over the log-odds of a model of the reply and over how the reply
fits the dialogue. The models of the reply are of two families: `support.select` reads words and characters
(TF-IDF), `support.report` the states of MiniLM's lower layers. Each is fitted, on first use, on its own half
of the judged replies (data/support/README.md) and measured on the other's; no dialogue stands in both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from safepref import assets
from safepref.data.support import Side, judged_replies
from safepref.judges.base import Exchange, Judgment, Verdict, turns_before
from safepref.judges.calibrate import calibrate
from safepref.judges.embedding import sentence_encoder
from safepref.judges.features import clean, content_words, sentences, words
from safepref.judges.labelled import normalise
from safepref.judges.language import unreadable
from safepref.judges.linear import (
    Floats,
    Linear,
    TextModel,
    fit_logistic,
    fit_text,
    load_state,
    out_of_fold,
    save_state,
    sigmoid,
)
from safepref.store import cache_dir, sha256_bytes, sha256_json

THRESHOLD = 0.5
STRENGTH = 0.1
"""Strength of the last stage's fit."""
WORDS = 3.0
STATES = 0.003
CONTEXT = 600
"""Characters of the turns before and the request that a reply's states are held against: the last ones."""
KEPT = (
    *("data", "n", "positives", "left_out", "unscored", "roc_auc", "pr_auc", "sensitivity", "specificity"),
    *("f1", "kappa", "ece", "intervals", "effective", "by_category"),
)
"""Of a calibration, what stands on the card."""
SOURCES = ("support.py", "linear.py", "embedding.py", "features.py")


class SupportJudge(ABC):
    """A judge of replies, fitted on this machine from rows that come with the package."""

    side: ClassVar[Side]
    family: ClassVar[str]

    _final: Linear
    _center: tuple[Floats, Floats]
    _platt: tuple[float, float]
    _meta: dict[str, Any]

    def __init__(self) -> None:
        self.name = f"support.{self.side}"
        folder = cache_dir("judges", self.name, self.fingerprint()[:16])
        with FileLock(folder / ".lock"):
            state = load_state(folder)
            if state is None:
                arrays, meta = self._fit()
                self._load(arrays, meta)
                save_state(folder, arrays, meta | {"measured": self._measure()})
                state = load_state(folder)
        assert state is not None
        self._load(*state)

    @classmethod
    def fingerprint(cls) -> str:
        """SHA-256 over everything that a fit depends on: code, rows and the encoder."""
        import sklearn

        package = resources.files("safepref.judges")
        rows = resources.files("safepref.data").joinpath("support", f"judged.{cls.side}.jsonl")
        return sha256_json(
            {
                "judge": cls.__name__,
                "files": {name: sha256_bytes(package.joinpath(name).read_bytes()) for name in SOURCES},
                "rows": sha256_bytes(rows.read_bytes()),
                "minilm": assets.wheels()["minilm"].sha256,
                "sklearn": sklearn.__version__,
            }
        )

    @abstractmethod
    def _fit_reply(self, exchanges: Sequence[Exchange], bad: Floats, groups: Sequence[str]) -> Floats:
        """Fit the model of the reply; returns log-odds of the given rows by models that did not see their
        dialogue, (N,)."""

    @abstractmethod
    def _reply_logits(self, exchanges: Sequence[Exchange]) -> Floats:
        """The reply model's log-odds of bad, (N,)."""

    @abstractmethod
    def _arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What `_restore` needs of the reply model."""

    @abstractmethod
    def _restore(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None: ...

    def _fit(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        rows = judged_replies(self.side)
        exchanges = [_cleaned(_exchange(row.messages, row.response)) for row in rows]
        bad = np.asarray([float(not row.good) for row in rows])
        ones, groups = np.ones(len(rows)), [normalise(e.before + " " + e.prompt) for e in exchanges]
        reply = self._fit_reply(exchanges, bad, groups)
        raw = np.c_[reply, _fits(exchanges)]
        self._center = (raw.mean(0), raw.std(0) + 1e-6)
        columns = (raw - self._center[0]) / self._center[1]

        def fold(train: NDArray[np.int64]) -> Any:
            model = fit_logistic(columns[train], bad[train], ones[train], STRENGTH)
            return lambda test: model.logits(columns[test])

        final = fit_logistic(columns, bad, ones, STRENGTH)
        platt = fit_logistic(out_of_fold(fold, groups)[:, None], bad, ones, strength=1e4)
        arrays, meta = self._arrays()
        arrays |= {
            "final": np.r_[final.weights, final.bias],
            "center": np.stack(self._center),
            "platt": np.asarray([platt.weights[0], platt.bias]),
        }
        return arrays, meta | {"rows": len(rows)}

    def _load(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self._restore(arrays, meta)
        self._final = Linear(arrays["final"][:-1], float(arrays["final"][-1]))
        self._center = (arrays["center"][0], arrays["center"][1])
        self._platt = (float(arrays["platt"][0]), float(arrays["platt"][1]))
        self._meta = meta

    def _measure(self) -> dict[str, Any]:
        """Figures on the other judge's rows, never fitted on here, and the hits for a corrected rate."""
        found = calibrate(self, f"support-{'report' if self.side == 'select' else 'select'}")
        return {"calibration": {key: found[key] for key in KEPT}, "hits": found["hits"]}

    def probabilities(self, exchanges: Sequence[Exchange]) -> Floats:
        """P(bad) of each reply, shape (N,)."""
        if not exchanges:
            return np.zeros(0)
        shown = [_cleaned(exchange) for exchange in exchanges]
        raw = np.c_[self._reply_logits(shown), _fits(shown)]
        slope, shift = self._platt
        return sigmoid(slope * self._final.logits((raw - self._center[0]) / self._center[1]) + shift)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each; empty, degenerate and not English replies are unscored, with the reason."""
        reasons = [unreadable(exchange.response) for exchange in exchanges]
        scored = [at for at, reason in enumerate(reasons) if not reason]
        found = [Judgment(Verdict.UNSCORED, None, self.name, reason=reason) for reason in reasons]
        for at, score in zip(scored, self.probabilities([exchanges[at] for at in scored]), strict=True):
            verdict = Verdict.BAD if score >= THRESHOLD else Verdict.GOOD
            found[at] = Judgment(verdict, round(float(score), 6), self.name)
        return found

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Whether a reply, or its dialogue, was fitted on."""
        rows = judged_replies(self.side)
        said = {normalise(row.response) for row in rows}
        asked = {_dialogue(_exchange(row.messages, "")) for row in rows}
        return [normalise(e.response) in said or _dialogue(e) in asked for e in exchanges]

    def card(self) -> dict[str, Any]:
        """What the judge is, what it was fitted on, what it measures on rows it never saw, where it fails."""
        return {
            "judge": self.name,
            "family": self.family,
            "trained_on": [f"data/support/judged.{self.side}.jsonl"],
            "never_trained_on": ["the other support judge's rows", "data/support/dialogues.jsonl"],
            "rows": self._meta["rows"],
            "threshold": THRESHOLD,
            "fingerprint": self.fingerprint(),
            "weaknesses": [
                "fitted on 260 replies with one clear fault each; subtle faults are missed",
                "whether what a reply says is true or allowed is not known to it",
                "languages other than English",
            ],
            **self._meta.get("measured", {}),
        }


class SupportSelectJudge(SupportJudge):
    """Words and characters of the reply."""

    side = "select"
    family = "TF-IDF of the reply and how it fits the dialogue, logistic regression"

    _words: TextModel

    def _fit_reply(self, exchanges: Sequence[Exchange], bad: Floats, groups: Sequence[str]) -> Floats:
        texts = [exchange.response for exchange in exchanges]
        self._words, held_out = fit_text(
            texts, bad, np.ones(len(bad)), groups, characters=True, strength=WORDS
        )
        return held_out

    def _reply_logits(self, exchanges: Sequence[Exchange]) -> Floats:
        return self._words.logits([exchange.response for exchange in exchanges])

    def _arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return self._words.state("words")

    def _restore(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self._words = TextModel.restore("words", arrays, meta)


class SupportReportJudge(SupportJudge):
    """MiniLM's states of the reply, by themselves and against those of the dialogue."""

    side = "report"
    family = "MiniLM states of reply and dialogue, and how they fit, logistic regression"

    _linear: Linear
    _scale: tuple[Floats, Floats]

    @staticmethod
    def _states(exchanges: Sequence[Exchange]) -> Floats:
        reply = _encoded([exchange.response for exchange in exchanges])
        asked = _encoded([_context(exchange) for exchange in exchanges])
        return np.asarray(np.c_[reply, reply * asked], np.float64)

    def _fit_reply(self, exchanges: Sequence[Exchange], bad: Floats, groups: Sequence[str]) -> Floats:
        vectors, ones = self._states(exchanges), np.ones(len(bad))
        self._scale = (vectors.mean(0), vectors.std(0) + 1e-6)
        features = (vectors - self._scale[0]) / self._scale[1]

        def fold(train: NDArray[np.int64]) -> Any:
            model = fit_logistic(features[train], bad[train], ones[train], STATES)
            return lambda test: model.logits(features[test])

        self._linear = fit_logistic(features, bad, ones, STATES)
        return out_of_fold(fold, groups)

    def _reply_logits(self, exchanges: Sequence[Exchange]) -> Floats:
        return self._linear.logits((self._states(exchanges) - self._scale[0]) / self._scale[1])

    def _arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {"states": np.r_[self._linear.weights, self._linear.bias], "scale": np.stack(self._scale)}, {}

    def _restore(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self._linear = Linear(arrays["states"][:-1], float(arrays["states"][-1]))
        self._scale = (arrays["scale"][0], arrays["scale"][1])


def _exchange(messages: Sequence[dict[str, str]], response: str) -> Exchange:
    return Exchange(messages[-1]["content"], response, turns_before(messages))


def _cleaned(exchange: Exchange) -> Exchange:
    return Exchange(clean(exchange.prompt), clean(exchange.response), clean(exchange.before))


def _context(exchange: Exchange) -> str:
    return f"{exchange.before}\n{exchange.prompt}"[-CONTEXT:]


def _dialogue(exchange: Exchange) -> str:
    return normalise(f"{exchange.before} {exchange.prompt}")


def _encoded(texts: Sequence[str]) -> Floats:
    encoder = sentence_encoder()
    return encoder.states([encoder.tokens(text) for text in texts]).astype(np.float64)


def _fits(exchanges: Sequence[Exchange]) -> Floats:
    """How replies fit their dialogues, shape (N, 8): words in common, length, questions, who is spoken of."""
    return np.asarray([_fit_of(exchange) for exchange in exchanges], np.float64)


def _fit_of(exchange: Exchange) -> list[float]:
    said, tokens = content_words(exchange.response), words(exchange.response)
    asked = content_words(exchange.prompt)
    count, parts = max(1, len(tokens)), max(1, len(sentences(exchange.response)))
    return [
        len(said & asked) / max(1, len(said)),
        len(said & (asked | content_words(exchange.before))) / max(1, len(said)),
        float(np.log(count)),
        len(set(tokens)) / count,
        float("?" in exchange.response),
        sum(token in ("you", "your") for token in tokens) / count,
        sum(token in ("i", "i'll", "i've", "we", "we'll", "our") for token in tokens) / count,
        float(np.log(count / parts)),
    ]
