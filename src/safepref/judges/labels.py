"""The judge `labels`: whether an answer names the right category. Nothing is fitted; a match decides.

What is right comes with each exchange, as `Exchange.target`: a JSON object of every category that could be
named, with 1 (right), 0 (wrong) or null (nobody knows). An answer that names none of them, or several, has no
verdict, nor has one that names a category of which nobody knows: unknown never counts as right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.judges.features import clean


def target_text(labels: dict[str, int | None]) -> str:
    """The target of an exchange from its labels by category."""
    return json.dumps(labels, ensure_ascii=False)


def named(answer: str, categories: Iterable[str]) -> list[str]:
    """The distinct categories that an answer names, in its order.

    Names are whole words; case, hyphens and underscores do not matter. Of names that hold one another the
    longest counts.
    """
    text = folded(clean(answer))
    found: dict[str, int] = {}
    for name in sorted(categories, key=lambda name: (-len(name), name)):
        pattern = re.compile(rf"(?<!\w){re.escape(folded(name))}(?!\w)")
        if hit := pattern.search(text):
            found[name] = hit.start()
            text = pattern.sub(lambda match: "\0" * len(match[0]), text)
    return sorted(found, key=found.__getitem__)


def folded(text: str) -> str:
    """A name as names are compared: case, hyphens and underscores aside."""
    return re.sub(r"[-_]", " ", text.casefold())


@lru_cache(maxsize=256)
def labels_of(target: str) -> dict[str, int | None]:
    """What `target_text` wrote."""
    return dict(json.loads(target))


class LabelJudge:
    """Compares the category that an answer names with those that people gave the text."""

    name = "labels"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each; `categories` holds the one that was named."""
        return [self._judged(exchange) for exchange in exchanges]

    def _judged(self, exchange: Exchange) -> Judgment:
        if not exchange.target:
            return self._unscored("what is right is not known")
        labels = labels_of(exchange.target)
        said = named(exchange.response, labels)
        if len(said) != 1:
            return self._unscored(f"names {' and '.join(said)}" if said else "names no category")
        right = labels[said[0]]
        if right is None:
            return self._unscored(f"nobody said whether it is {said[0]}")
        verdict = Verdict.GOOD if right else Verdict.BAD
        return Judgment(verdict, float(not right), self.name, categories=(said[0],))

    def _unscored(self, reason: str) -> Judgment:
        return Judgment(Verdict.UNSCORED, None, self.name, reason=reason)

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Nothing is fitted."""
        return [False] * len(exchanges)

    def card(self) -> dict[str, Any]:
        """What it does; there is no error to measure but that of the labels themselves."""
        return {
            "judge": self.name,
            "family": "match of the one category that an answer names with the text's labels",
            "trained_on": [],
            "exact": True,
            "weaknesses": [
                "a category that is named to deny it counts as named",
                "right is what the labels say: their own errors are the judge's",
            ],
        }
