"""Toxicity by any text-classification model; Detoxify's by their names.

Detoxify (github.com/unitaryai/detoxify, Apache-2.0) is three such models, which its makers also publish on
the hub. They are read from there, for its package loads pickled weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref.data.records import without_surrogates
from safepref.errors import InputError
from safepref.judges.language import ENGLISH_ONLY
from safepref.judges.toxicity import ToxicityScorer

EMBEDDED = "tox-block"
DETOXIFY = {
    "detoxify": "unitary/toxic-bert",
    "detoxify-unbiased": "unitary/unbiased-toxic-roberta",
    "detoxify-multilingual": "unitary/multilingual-toxic-xlm-roberta",
}
READS = {
    "detoxify": ENGLISH_ONLY,
    "detoxify-unbiased": ENGLISH_ONLY,
    "detoxify-multilingual": (
        *ENGLISH_ONLY,
        "French",
        "Spanish",
        "Italian",
        "Portuguese",
        "Turkish",
        "Russian",
    ),
}
"""The languages that their makers trained them on (the README of Detoxify)."""
TOXIC = ("toxicity", "toxic", "hate", "hateful", "offensive", "offense", "abusive")
"""Labels that mean what is asked for, the likeliest first."""
LONGEST = 512
"""Tokens that are read of a text: its first ones."""


class TextClassifier:
    """P(toxic) by a transformers text-classification model.

    Softmax where its labels exclude each other, sigmoid where they do not.

    Args:
        model: hub id or folder.
        label: which of its labels is toxic; null takes the one that is called so.
        exclusive: whether its labels exclude each other; null reads it from the configuration.
        reads: languages that it reads; null where that is not known, and then it is given every text.
        batch_size: texts in one forward pass.

    Raises:
        InputError: the model cannot be loaded, or none or several of its labels could be meant.
    """

    def __init__(
        self,
        model: str,
        label: str | None = None,
        *,
        exclusive: bool | None = None,
        reads: Sequence[str] | None = None,
        batch_size: int = 32,
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from safepref.hardware import choose_device
        from safepref.logprobs.store import model_fingerprint

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                model, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"toxicity model {model!r} cannot be loaded ({reason}); give a text-classification model "
                f"with safetensors weights, {EMBEDDED}, or {', '.join(DETOXIFY)}"
            ) from error
        self._model.to(choose_device("auto")).eval()
        self.reads = reads
        self._batch_size = batch_size
        many = self._model.config.problem_type == "multi_label_classification"
        alone = (exclusive if exclusive is not None else not many) and self._model.config.num_labels > 1
        self._scores = "softmax" if alone else "sigmoid"
        self.name = f"{model}#{self._column(model, label)}"
        # Now: a tokenizer that has padded or cut a text has other settings, and would have another hash.
        self._fingerprint = model_fingerprint(self._model, self._tokenizer)

    def _column(self, model: str, label: str | None) -> str:
        names = {int(at): str(name) for at, name in self._model.config.id2label.items()}
        found = [at for at, name in names.items() if name.casefold() == (label or "").casefold()]
        if label is None:
            ranked = [at for word in TOXIC for at, name in names.items() if name.casefold() == word]
            found = ranked[:1] if ranked else [0] if len(names) == 1 else []
        if len(found) != 1:
            raise InputError(
                f"toxicity model {model!r}: {label or 'no label'!r} is none of its labels "
                f"{', '.join(names.values())}; give hf:{model}#LABEL"
            )
        self._at = found[0]
        return names[self._at]

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """P(toxic) of each text, `(N,)` in 0..1; of a long one the first 512 tokens are read."""
        import torch

        found = np.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            inputs = self._tokenizer(
                [without_surrogates(texts[i]) for i in batch],
                padding=True,
                truncation=True,
                max_length=self._room(),
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float()
            chances = logits.softmax(-1) if self._scores == "softmax" else logits.sigmoid()
            found[batch] = chances[:, self._at].cpu().numpy()
        return found

    def _room(self) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", LONGEST)
        # RoBERTa's kind counts its positions from the padding token on.
        offset = (self._tokenizer.pad_token_id or 0) + 1 if "roberta" in self._model.config.model_type else 0
        return int(min(LONGEST, positions - offset))

    def card(self) -> dict[str, Any]:
        """What the scorer is."""
        return {
            "judge": self.name,
            "model_sha256": self._fingerprint,
            "family": "text classification",
            "trained_on": ["its makers' data"],
            "reads": None if self.reads is None else list(self.reads),
            "scores": self._scores,
            "threshold": 0.5,
            "weaknesses": [f"Reads the first {self._room()} tokens of a text."],
        }


def load_toxicity(name: str = EMBEDDED) -> ToxicityScorer | TextClassifier:
    """The toxicity model of that name: `tox-block`, `detoxify...`, or `hf:MODEL` or `hf:MODEL#LABEL`.

    Raises:
        InputError: unknown name, or a model that cannot be loaded or read.
    """
    check_toxicity(name)
    if name == EMBEDDED:
        return ToxicityScorer()
    if name in DETOXIFY:
        return TextClassifier(DETOXIFY[name], exclusive=False, reads=READS[name])
    model, _, label = name.removeprefix("hf:").partition("#")
    return TextClassifier(model, label or None)


def check_toxicity(name: str) -> None:
    """Refuse a name that stands for no toxicity model.

    Raises:
        InputError: names those that there are.
    """
    named = name.startswith("hf:") and name.removeprefix("hf:").partition("#")[0]
    if name != EMBEDDED and name not in DETOXIFY and not named:
        raise InputError(
            f"toxicity model {name!r} is not known; give {EMBEDDED}, {', '.join(DETOXIFY)}, or hf:MODEL#LABEL"
        )
