"""Toxicity scores on disk, keyed by the model and the text, so that an identical text is scored once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref.judges.kept import keep, kept_file, read_kept, reuse, text_key
from safepref.judges.toxicity import ToxicityScorer
from safepref.judges.toxicity_models import EMBEDDED, TextClassifier, load_toxicity


class CachedToxicity:
    """Wraps a toxicity model, whose card must name all that a score depends on."""

    def __init__(self, scorer: ToxicityScorer | TextClassifier, folder: Path | None = None) -> None:
        self._scorer = scorer
        self.name = scorer.name
        self.reads = scorer.reads
        self._file = kept_file(self.name, scorer.card(), folder)
        self._known = {
            str(row["key"]): float(row["score"])
            for row in read_kept(self._file)
            if "key" in row and isinstance(row.get("score"), int | float)
        }
        self.asked = self.scored = 0

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """P(toxic) of each text, `(N,)` in 0..1; only texts never scored before reach the model."""
        keys = [text_key(text) for text in texts]
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        self.asked, self.scored = self.asked + len(keys), self.scored + len(fresh)
        given = self._scorer.score(list(fresh.values())).tolist() if fresh else []
        made = dict(zip(fresh, given, strict=True))
        # A broken model's NaN is no score, and another day's weights may give one.
        whole = {key: score for key, score in made.items() if math.isfinite(score)}
        keep(self._file, ({"key": key, "score": score} for key, score in whole.items()))
        self._known |= whole
        return np.asarray([made[key] if key in made else self._known[key] for key in keys], np.float64)

    def reuse(self) -> dict[str, Any]:
        """`asked`, `reused` and their ratio `rate` (null where nothing was asked), since it was loaded."""
        return reuse(self.asked, self.scored)

    def card(self) -> dict[str, Any]:
        """The wrapped model's card."""
        return self._scorer.card()


def load_cached_toxicity(name: str = EMBEDDED) -> ToxicityScorer | CachedToxicity:
    """The toxicity model of that name; scores of one that the user names are kept.

    Raises:
        InputError: unknown name, or a model that cannot be loaded or read.
    """
    scorer = load_toxicity(name)
    return CachedToxicity(scorer) if isinstance(scorer, TextClassifier) else scorer
