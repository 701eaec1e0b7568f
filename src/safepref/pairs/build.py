"""On-policy preference pairs: what the model itself would say, against what it should say.

Harmful requests: the rejected answer is the model's own sampled one, kept only where the judge finds it
harmful; the chosen one is a refusal that fits the category. Harmless look-alikes: the model's own good answer
is chosen and a refusal rejected. General requests carry the model's own greedy answer as an anchor.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safepref.data.records import Example, Message, Pair, Prompt, content_id
from safepref.errors import InputError
from safepref.generation.base import Completion, Engine, Progress, Sampling
from safepref.generation.resumable import answer_all
from safepref.judges.base import Exchange, Judge, Verdict
from safepref.judges.degenerate import degenerate
from safepref.pairs.refusals import over_refusal_for, refusal_for, shipped_refusals, short_refusal_for
from safepref.pairs.wrapping import wrapped
from safepref.recipe import DataSection

SAFETY_SYSTEM = (
    "You are a careful assistant. If a request is harmful, illegal, hateful or dangerous, say briefly and "
    "kindly that you will not help with it, give the reason, and offer a safe alternative."
)
"""System prompt under which the model's own refusals are drawn."""

FEWEST = 8
"""Unsafe answers below which a model counts as safe already."""

RefusalCheck = Callable[[str, str], bool]
"""(prompt, answer) -> whether the answer refuses."""


@dataclass(slots=True)
class Built:
    """Pairs and anchor examples, with counts of what was tried and dropped."""

    pairs: list[Pair] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds pairs with one engine and judge; answers are kept in `folder`, so a second call continues."""

    data: DataSection
    engine: Engine
    judge: Judge
    refuses: RefusalCheck
    folder: Path
    seed: int = 0
    progress: Progress | None = None
    answered: dict[str, Completion] = field(default_factory=dict)
    """The greedy answers to ordinary requests so far: pairs and anchor examples share them."""

    def harmful(self, prompts: Sequence[Prompt], built: Built) -> None:
        """Add `data.harmful` pairs; prompts are taken evenly over categories until enough answers are unsafe.

        Where the prompts run out, the pairs found so far are what there is; the counts tell.

        Raises:
            InputError: hardly any answer was unsafe, so that there is nothing to learn from.
        """
        wanted, found = self.data.harmful, 0
        queue = wrapped(interleave(prompts, self.seed), self.data.attacks, self.data.attacked, self.seed)
        block = 0
        while found < wanted and queue:
            size = min(len(queue), max(16, round(1.25 * (wanted - found))))
            pending, queue = queue[:size], queue[size:]
            for attempt in range(self.data.tries):
                sampling = self._sampling(self.data.temperature, self.seed + attempt)
                answers = self._answer(f"harmful-{block}-{attempt}", pending, sampling)
                unsafe = self._unsafe(pending, answers)
                built.counts["harmful_tried"] += len(pending)
                refusals = self._refusals(f"refusal-{block}-{attempt}", [p for p in pending if unsafe[p.id]])
                for prompt in pending:
                    if unsafe[prompt.id] and found < wanted:
                        pair = make_pair(prompt, refusals[prompt.id], answers[prompt.id], "harmful")
                        built.pairs.append(replace(pair, weight=self.data.weights.harmful))
                        found += 1
                pending = [prompt for prompt in pending if not unsafe[prompt.id]]
                if not pending or found >= wanted:
                    break
            built.counts["harmful_safe_already"] += len(pending)
            block += 1
        built.counts["harmful"] = found
        if found < min(wanted, FEWEST):
            raise InputError(
                f"data.harmful is {wanted}, but only {found} unsafe answers were found in {len(prompts)} "
                "prompts; lower it, raise data.tries, or give more prompts with data.prompts"
            )

    def harmless(self, prompts: Sequence[Prompt], built: Built, ready: float = 0) -> None:
        """Add up to `data.harmless` pairs from look-alikes that the model answers.

        The requests are known to be harmless, so an answer counts as good when it does not refuse and is no
        gibberish; a judge of harm would drop just the look-alikes that teach the boundary. At most the share
        `data.harmless_share` of all pairs' weight, the user's own pairs of weight `ready` in all among them:
        where the recipe asks for more, they are weighted down to it.
        """
        kept = self._answered("harmless", prompts, self.data.harmless, self.seed + 1, built)
        taught = [pair.chosen for pair in built.pairs if pair.kind == "harmful"]
        weights, share = self.data.weights, self.data.harmless_share
        others = sum(pair.weight for pair in built.pairs) + ready * weights.preference
        weight = weights.harmless
        if kept and others and share < 1:
            weight = min(weight, others / (1 / share - 1) / len(kept)) if share else 0.0
        self._over_refused(kept, taught, "harmless", weight, built)

    def ordinary(self, prompts: Sequence[Prompt], built: Built) -> None:
        """Add up to `data.ordinary` pairs from ordinary requests: the model's own answer over a refusal."""
        kept = self._answered("ordinary", prompts, self.data.ordinary, self.seed + 3, built)
        taught = [pair.chosen for pair in built.pairs if pair.kind == "harmful"]
        self._over_refused(kept, taught, "ordinary", self.data.weights.ordinary, built)

    def _answered(
        self, kind: str, prompts: Sequence[Prompt], wanted: int, seed: int, built: Built
    ) -> list[tuple[Prompt, Completion]]:
        """Requests that the model itself answers, at most `wanted`, with its greedy answers."""
        queue = interleave(prompts, seed)[: round(1.5 * wanted)]
        answers = self._shared(kind, queue)
        found = [(prompt, answers[prompt.id]) for prompt in queue]
        kept = [
            (prompt, answer)
            for prompt, answer in found
            if not self.refuses(prompt.text, answer.text) and not degenerate(answer.text)
        ][:wanted]
        built.counts[f"{kind}_tried"] = len(queue)
        built.counts[kind] = len(kept)
        if kind in self.data.anchored:
            built.examples += [self._example(prompt, answer) for prompt, answer in kept]
        return kept

    def _example(self, prompt: Prompt, answer: Completion) -> Example:
        weight = self.data.weights.general
        return Example(prompt.id, prompt.messages, answer.text, prompt.source, weight, answer.truncated)

    def _over_refused(
        self,
        kept: Sequence[tuple[Prompt, Completion]],
        taught: Sequence[str],
        kind: str,
        weight: float,
        built: Built,
    ) -> None:
        for prompt, answer in kept:
            refusal = self._over_refusal(prompt, taught)
            built.pairs.append(replace(make_pair(prompt, answer, refusal, kind), weight=weight))

    def _over_refusal(self, prompt: Prompt, taught: Sequence[str]) -> Completion:
        """A needless refusal, in `data.taught` of all cases in words that harmful pairs teach, if any do."""
        draw = int(content_id("taught", prompt.id, str(self.seed)), 16)
        if not taught or draw % 1000 >= 1000 * self.data.taught:
            return Completion(over_refusal_for(prompt, self.seed), 0, False)
        if self.data.refusals in ("written", "short"):
            return self._written(prompt)
        return Completion(taught[draw // 1000 % len(taught)], 0, False)

    def general(self, prompts: Sequence[Prompt], built: Built) -> None:
        """Add `data.general` examples: the model's own greedy answers to ordinary requests."""
        wanted = self.data.general
        anchors = {example.id for example in built.examples}
        new = [prompt for prompt in prompts if prompt.id not in anchors]
        queue = interleave(new, self.seed + 2)[: round(1.2 * wanted)]
        answers = self._shared("general", queue)
        for prompt in queue:
            answer = answers[prompt.id]
            if built.counts["general"] == wanted:
                break
            if not degenerate(answer.text) and not self.refuses(prompt.text, answer.text):
                built.examples.append(self._example(prompt, answer))
                built.counts["general"] += 1
        built.counts["general_tried"] = len(queue)

    def _refusals(self, name: str, prompts: Sequence[Prompt]) -> dict[str, Completion]:
        written = {p.id: self._written(p) for p in prompts}
        if self.data.refusals in ("written", "short") or not prompts:
            return written
        cautious = [
            replace(p, messages=({"role": "system", "content": SAFETY_SYSTEM}, *_without_system(p.messages)))
            for p in prompts
        ]
        own = self._answer(name, cautious, self._sampling(0.0, 0))
        chosen = dict(written)
        for place, prompt in enumerate(prompts):
            answer = own[prompt.id]
            wanted = self.data.refusals == "model" or place % 2 == 0
            if wanted and not answer.truncated and self.refuses(prompt.text, answer.text):
                chosen[prompt.id] = answer
        return chosen

    def _written(self, prompt: Prompt) -> Completion:
        if self.data.refusals != "short":
            return Completion(refusal_for(prompt, self.seed), 0, False)
        draw = int(content_id("reason", prompt.id, str(self.seed)), 16)
        if draw % 1000 >= 1000 * self.data.reasons:
            return Completion(shipped_refusals().short_opening, 0, True)
        return Completion(short_refusal_for(prompt, self.seed), 0, False)

    def _unsafe(self, prompts: Sequence[Prompt], answers: Mapping[str, Completion]) -> dict[str, bool]:
        # The judge is shown the bare request: an attack's wrapping is not what the answer is about.
        shown = [Exchange(p.request, answers[p.id].text) for p in prompts]
        verdicts = self.judge.judge(shown)
        return {
            p.id: verdict.verdict is Verdict.HARMFUL and not degenerate(answers[p.id].text)
            for p, verdict in zip(prompts, verdicts, strict=True)
        }

    def _sampling(self, temperature: float, seed: int) -> Sampling:
        return Sampling(self.data.answer_tokens, temperature, seed=seed)

    def greedy(self, name: str, prompts: Sequence[Prompt]) -> dict[str, Completion]:
        """The model's own greedy answers by the prompts' ids, kept as NAME.jsonl."""
        return self._answer(name, prompts, self._sampling(0.0, 0))

    def _shared(self, name: str, prompts: Sequence[Prompt]) -> dict[str, Completion]:
        """The greedy answers, asked only for prompts that no kind has asked yet."""
        new = [prompt for prompt in prompts if prompt.id not in self.answered]
        self.answered.update(self.greedy(name, new))
        if self.progress is not None:
            self.progress(len(prompts) - len(new))
        return {prompt.id: self.answered[prompt.id] for prompt in prompts}

    def own_turn(self, place: int) -> bool:
        """Whether the pair at this place, from 0, is of the `data.own` with an answer of the model's own."""
        return int((place + 1) * self.data.own) > int(place * self.data.own)

    def _answer(self, name: str, prompts: Sequence[Prompt], sampling: Sampling) -> dict[str, Completion]:
        conversations = [(prompt.id, prompt.messages) for prompt in prompts]
        return answer_all(
            self.engine, conversations, sampling, self.folder / f"{name}.jsonl", progress=self.progress
        )


def interleave(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """The prompts shuffled by seed and taken from each category in turn, so any head is balanced."""
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: p.id):
        groups[prompt.category or ""].append(prompt)
    rng = random.Random(seed)
    names = sorted(groups)
    rng.shuffle(names)
    for name in names:
        rng.shuffle(groups[name])
    longest = max(map(len, groups.values()), default=0)
    return [groups[name][turn] for turn in range(longest) for name in names if turn < len(groups[name])]


def _without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message["role"] != "system")


def make_pair(prompt: Prompt, chosen: Completion, rejected: Completion, kind: Any) -> Pair:
    # An answer that the token cap cut must not be taught to end where it was cut.
    meta = {"chosen_truncated": chosen.truncated, "rejected_truncated": rejected.truncated}
    return Pair(
        id=content_id(prompt.id, chosen.text, rejected.text),
        messages=prompt.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        kind=kind,
        category=prompt.category,
        attack=prompt.attack,
        template=prompt.template,
        source=prompt.source,
        meta=meta,
    )
