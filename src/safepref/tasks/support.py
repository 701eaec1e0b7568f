"""A helpful, polite support dialogue: good replies over bad ones, in conversations of several turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from safepref.data.readers import read_pairs, read_prompts
from safepref.data.records import Message, Pair, Prompt, content_id
from safepref.data.splits import FRACTIONS, split_by_template
from safepref.data.support import load_dialogues
from safepref.generation.base import Completion
from safepref.judges.base import exchange_of
from safepref.judges.degenerate import degenerate
from safepref.pairs.build import Builder, Built, interleave, make_pair
from safepref.recipe import STARTER, Names, Recipe, as_names
from safepref.tasks.base import Sides, TaskKind
from safepref.tasks.sides import check_files, deal


def sides(recipe: Recipe, notes: list[str]) -> Sides:
    """Dialogues to reply to, by side.

    Files of `data.prompts` hold pairs in TRL's formats, that of `evaluation.prompts` dialogues alone may do.

    Raises:
        InputError: a file that cannot be read, or a row of `data.prompts` without two replies.
    """
    check_files(recipe)
    _answers(recipe.data.prompts)  # a row without its replies is told now
    return deal(recipe, {STARTER: _starter}, lambda name: read_prompts(name, "task", name))


def _starter() -> Sides:
    prompts = [
        Prompt(
            id=content_id("support", _key(pair.messages)),
            messages=pair.messages,
            kind="task",
            category=pair.category,
            template=pair.template,
            source=pair.source,
        )
        for pair in load_dialogues()
    ]
    return split_by_template(prompts, FRACTIONS, 0)


def _answers(names: Names | None) -> dict[str, Pair]:
    """The written replies to each dialogue of `data.prompts`."""
    found: dict[str, Pair] = {}
    for name in as_names(names):
        pairs = load_dialogues() if name == STARTER else read_pairs(name)
        found |= {_key(pair.messages): pair for pair in pairs}
    return found


def _key(messages: Sequence[Message]) -> str:
    return json.dumps(list(messages), sort_keys=True)


def pairs(builder: Builder, prompts: Sequence[Prompt], built: Built) -> None:
    """Add up to `data.task` pairs, evenly over the domains: the written good reply over a bad one.

    In `data.own` of them the bad one is the model's own greedy reply, where the judge finds it bad; in the
    others, and where it does not, the written one.
    """
    written = _answers(builder.data.prompts)
    known = [prompt for prompt in prompts if _key(prompt.messages) in written]
    queue = interleave(known, builder.seed)[: builder.data.task]
    turns = [prompt for place, prompt in enumerate(queue) if builder.own_turn(place)]
    bad = _own_bad(builder, turns)
    for prompt in queue:
        pair = written[_key(prompt.messages)]
        rejected = bad.get(prompt.id, Completion(pair.rejected, 0, False))
        built.pairs.append(make_pair(prompt, Completion(pair.chosen, 0, False), rejected, "preference"))
    built.counts["task"] = built.counts["task_tried"] = len(queue)
    built.counts["task_own"] = len(bad)


def _own_bad(builder: Builder, prompts: Sequence[Prompt]) -> Mapping[str, Completion]:
    """The model's own replies that the judge calls bad, by the prompts' ids."""
    answers = builder.greedy("task", prompts)
    verdicts = builder.judge.judge([exchange_of(p, answers[p.id].text) for p in prompts])
    return {
        prompt.id: answers[prompt.id]
        for prompt, judgment in zip(prompts, verdicts, strict=True)
        if judgment.verdict.bad and not degenerate(answers[prompt.id].text)
    }


SUPPORT = TaskKind(
    name="support",
    title="Support dialogue",
    measure="good replies",
    counted="task",
    pairs=pairs,
    sides=sides,
    judges={"select": "support.select", "report": "support.report"},
    takes=("support.",),
)
