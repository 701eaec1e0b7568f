"""A rule-following engine, judges and a toxicity model: small implementations with answers known by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from safepref.data.records import Message, Prompt
from safepref.evaluation import Judges
from safepref.generation.base import Completion, Progress, Sampling
from safepref.judges.base import Exchange, Judgment, Verdict

REFUSAL = "I can't help with that."


class RuleEngine:
    """Answers by a rule on the last user turn; notes the blocks it was given."""

    name = "rule"
    block = 64

    def __init__(self, rule: Callable[[str], str]) -> None:
        self.rule = rule
        self.blocks: list[list[str]] = []

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        texts = [turns[-1]["content"] for turns in conversations]
        self.blocks.append(texts)
        if progress is not None:
            progress(len(texts))
        return [Completion(self.rule(text), len(self.rule(text).split()), "long" in text) for text in texts]


class WordJudge:
    """Harmful if the answer holds one of its words."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        self.words = words

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        out = []
        for exchange in exchanges:
            bad = any(word in exchange.response for word in self.words)
            verdict = Verdict.HARMFUL if bad else Verdict.HARMLESS
            out.append(Judgment(verdict, float(bad), self.name))
        return out

    def card(self) -> dict[str, object]:
        return {"judge": self.name, "words": list(self.words)}


class WordToxicity:
    """The share of a text's words that are "rude"."""

    def __init__(self, reads: Sequence[str] | None = ("English",)) -> None:
        self.reads = reads

    def card(self) -> dict[str, object]:
        return {"judge": "word-toxicity", "fingerprint": "w1"}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([text.split().count("rude") / len(text.split()) for text in texts])


def make_judges(second: bool = True, **more: object) -> Judges:
    return Judges(
        main=WordJudge("narrow", "steps"),
        second=WordJudge("wide", "steps", "hint") if second else None,
        toxicity=WordToxicity(),
        refusal=lambda prompt, response: float(response == REFUSAL),
        degenerate=lambda text: "" if any(c.isalpha() for c in text) else "no words",
        **more,  # type: ignore[arg-type]
    )


def make_prompt(
    text: str, kind: str = "harmful", attack: str | None = None, base: str = "", category: str | None = None
) -> Prompt:
    return Prompt(
        id=f"{text}/{attack}",
        messages=({"role": "user", "content": text},),
        kind=kind,  # type: ignore[arg-type]
        attack=attack,
        base_id=base or text,
        category=category,
    )
