"""Support: dialogues by side, pairs with the model's own bad replies, and files of the user's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from safepref.data.support import load_dialogues
from safepref.errors import InputError
from safepref.generation.base import Completion
from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.pairs.build import Builder, Built
from safepref.recipe import DataSection, Recipe, parse_recipe
from safepref.tasks import settled
from safepref.tasks.support import pairs, sides


def recipe(**values: Any) -> Recipe:
    return parse_recipe({"task": "support", **values}, "recipe")


def test_the_shipped_dialogues_share_no_template_across_sides() -> None:
    found = sides(recipe(), [])
    templates = [{prompt.template for prompt in prompts} for prompts in found.values()]
    assert all(templates) and sum(map(len, found.values())) == len(load_dialogues())
    assert not (templates[0] & templates[1] or templates[0] & templates[2] or templates[1] & templates[2])
    assert any(len(prompt.messages) > 1 for prompt in found["report"])
    assert all(prompt.messages[-1]["role"] == "user" for prompts in found.values() for prompt in prompts)
    assert settled(recipe()).judges.select == "support.select"


class Engine:
    """Says one thing to everybody."""

    name, block = "one", 64

    def generate(self, conversations: Sequence[Any], *_: Any) -> list[Completion]:
        return [Completion("I do not know, ask somebody else.", 8, True) for _ in conversations]


class Harsh:
    """Finds replies in conversations with turns before bad, others good."""

    name = "harsh"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        verdicts = [Verdict.BAD if exchange.before else Verdict.GOOD for exchange in exchanges]
        return [Judgment(verdict, 0.5, self.name) for verdict in verdicts]

    def card(self) -> dict[str, Any]:
        return {"judge": self.name}


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_the_models_own_reply_is_rejected_where_the_judge_finds_it_bad(tmp_path: Path, own: float) -> None:
    made, engine = Built(), Engine()
    data: Any = DataSection(task=30, own=own)
    builder = Builder(data, engine, Harsh(), lambda *_: False, tmp_path)  # type: ignore[arg-type]
    pairs(builder, sides(recipe(), [])["train"], made)
    written = {json.dumps(pair.messages): pair for pair in load_dialogues()}
    assert len(made.pairs) == made.counts["task"] == 30
    for pair in made.pairs:
        known = written[json.dumps(pair.messages)]
        replaced = own == 1.0 and len(pair.messages) > 1
        assert pair.chosen == known.chosen
        assert pair.rejected == ("I do not know, ask somebody else." if replaced else known.rejected)
        assert pair.meta["rejected_truncated"] == replaced
    assert (made.counts["task_own"] > 0) == (own > 0)


def test_a_users_dialogues_are_pairs_and_what_is_evaluated_needs_no_replies(tmp_path: Path) -> None:
    own, asked = tmp_path / "own.jsonl", tmp_path / "asked.jsonl"
    turns = [
        [{"role": "user", "content": f"{word} broke on day {n}"}]
        for n, word in enumerate(("Cup", "Jug", "Hat"))
    ]
    rows = [{"prompt": t, "chosen": "Let us see.", "rejected": "So what.", "category": "shop"} for t in turns]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked.write_text(json.dumps({"messages": [{"role": "user", "content": "Where is my lamp?"}]}) + "\n")
    found = sides(recipe(data={"prompts": str(own)}, evaluation={"prompts": str(asked)}), [])
    assert [prompt.text for prompt in found["report"]] == ["Where is my lamp?"]
    assert {prompt.category for prompt in found["train"]} == {"shop"}
    own.write_text(json.dumps({"prompt": turns[0], "chosen": "Let us see."}) + "\n")
    with pytest.raises(InputError, match=r"own\.jsonl:1: rejected: missing"):
        sides(recipe(data={"prompts": str(own)}), [])
