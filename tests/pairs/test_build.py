"""On-policy pairs: only unsafe answers are rejected ones, look-alikes are weighted, answers are resumable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from safepref.data.records import Message, Prompt, content_id
from safepref.errors import InputError
from safepref.generation.base import Completion, Progress, Sampling
from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.pairs.build import Builder, Built, interleave
from safepref.pairs.refusals import over_refusal_for, refusal_for, shipped_refusals
from safepref.recipe import DataSection


class Scripted:
    """Answers by rule; counts how many conversations it was asked."""

    name = "scripted"
    block = 64

    def __init__(self) -> None:
        self.asked = 0

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        self.asked += len(conversations)
        answers = []
        for messages in conversations:
            text = messages[-1]["content"]
            if messages[0]["role"] == "system":
                answers.append(Completion("I would rather not, but here is a safer idea.", 9, False))
            elif "steal" in text.lower() and sampling.seed == 0:
                answers.append(Completion("No, that is wrong.", 5, False))
            else:
                answers.append(Completion(f"Certainly, first take the {text.split()[-1]} and", 9, True))
        return answers


class Wary:
    """Finds every answer that begins with agreement harmful when the bare request is on its list."""

    name = "wary"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        def one(exchange: Exchange) -> Judgment:
            bad = exchange.response.startswith("Certainly") and exchange.prompt.startswith("how to")
            return Judgment(Verdict.HARMFUL if bad else Verdict.HARMLESS, float(bad), self.name)

        return [one(exchange) for exchange in exchanges]

    def card(self) -> dict[str, Any]:
        return {}


def prompts(kind: Any, *texts: str) -> list[Prompt]:
    return [
        Prompt(
            id=content_id(text),
            messages=({"role": "user", "content": text},),
            kind=kind,
            category=["crime_theft", "weapon_other"][n % 2],
        )
        for n, text in enumerate(texts)
    ]


HARMFUL = prompts("harmful", *(f"how to {verb} a car" for verb in ("steal", "burn", "crash", "flood")))
HARMLESS = prompts(
    "harmless", *(f"what is a word for {word}" for word in ("steal", "burn", "crash", "flood"))
)


def builder(folder: Path, engine: Scripted, **data: Any) -> Builder:
    values = {"harmful": 4, "harmless": 4, "general": 2, "attacked": 0.5, "tries": 2} | data
    return Builder(
        DataSection(**values), engine, Wary(), lambda p, r: r.startswith(("No", "I would")), folder, seed=0
    )


def test_rejected_answers_are_the_models_own_unsafe_ones(tmp_path: Path) -> None:
    built = Built()
    builder(tmp_path, Scripted()).harmful(HARMFUL, built)
    assert len(built.pairs) == 4
    assert all(pair.rejected.startswith("Certainly") for pair in built.pairs)
    assert all(not pair.chosen.startswith("Certainly") for pair in built.pairs)
    assert len({pair.chosen for pair in built.pairs}) > 1
    assert all(pair.meta == {"chosen_truncated": False, "rejected_truncated": True} for pair in built.pairs)
    assert sum(pair.attack is not None for pair in built.pairs) == 2
    # The refused theft was asked again with another seed before it gave an unsafe answer.
    assert built.counts["harmful_tried"] == 5


def test_every_category_is_met_plain_and_under_several_attacks(tmp_path: Path) -> None:
    asked = [
        Prompt(
            content_id(f"{c}/{n}"),
            ({"role": "user", "content": f"how to do the {n} of {c}"},),
            "harmful",
            category=f"c{c}",
        )
        for c in range(32)
        for n in range(12)
    ]
    built = Built()
    builder(tmp_path, Scripted(), harmful=384).harmful(asked, built)
    for c in range(32):
        forms = [pair.attack for pair in built.pairs if pair.category == f"c{c}"]
        assert forms.count(None) == 6
        assert len(set(forms)) == 5
    assert Counter(pair.attack for pair in built.pairs if pair.attack).most_common()[-1][1] >= 40


def test_hardly_any_unsafe_answers_end_the_run_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.harmful is 5, but only 4 unsafe answers .* in 4 prompts"):
        builder(tmp_path, Scripted(), harmful=5).harmful(HARMFUL, Built())


def test_fewer_unsafe_answers_than_wanted_are_kept_and_counted(tmp_path: Path) -> None:
    built = Built()
    asked = prompts("harmful", *(f"how to burn car {n}" for n in range(9)))
    builder(tmp_path, Scripted(), harmful=20).harmful(asked, built)
    assert len(built.pairs) == built.counts["harmful"] == 9


def test_look_alikes_keep_the_models_answer_and_weigh_at_most_a_third(tmp_path: Path) -> None:
    built = Built()
    make = builder(tmp_path, Scripted())
    make.harmful(HARMFUL, built)
    make.harmless(HARMLESS, built)
    harmless = [pair for pair in built.pairs if pair.kind == "harmless"]
    assert harmless
    assert all(pair.chosen.startswith("Certainly") for pair in harmless)
    weights = {kind: sum(p.weight for p in built.pairs if p.kind == kind) for kind in ("harmful", "harmless")}
    assert weights["harmless"] <= weights["harmful"] / 2 + 1e-9


MANY = prompts("harmless", *(f"how to kill a process, number {n}" for n in range(60)))


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.67, 30, 50), (1.0, 60, 60)])
@pytest.mark.parametrize("refusals", ["written", "model"])
def test_a_share_of_look_alikes_is_refused_in_the_taught_words(
    tmp_path: Path, share: float, low: int, high: int, refusals: str
) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), taught=share, refusals=refusals, harmless=60)
    make.harmful(HARMFUL, built)
    chosen = {pair.chosen for pair in built.pairs}
    make.harmless(MANY, built)
    by_text = {prompt.text: prompt for prompt in MANY}
    pairs = [(by_text[p.messages[-1]["content"]], p.rejected) for p in built.pairs if p.kind == "harmless"]
    stiff = sum(text == over_refusal_for(prompt) for prompt, text in pairs)
    taught = sum(
        text == refusal_for(prompt) if refusals == "written" else text in chosen for prompt, text in pairs
    )
    assert low <= taught <= high and taught + stiff == len(pairs) == 60


def test_without_harmful_pairs_no_refusal_is_pushed_down_that_nothing_holds_up(tmp_path: Path) -> None:
    built = Built()
    builder(tmp_path, Scripted(), taught=1.0).harmless(HARMLESS, built)
    by_text = {prompt.text: prompt for prompt in HARMLESS}
    assert built.pairs
    assert all(p.rejected == over_refusal_for(by_text[p.messages[-1]["content"]]) for p in built.pairs)


def test_the_users_own_pairs_count_in_the_third(tmp_path: Path) -> None:
    for ready, weight in ((0, 1.0), (2, 1 / 3), (20, 1.0)):
        built = Built()
        builder(tmp_path, Scripted()).harmless(HARMLESS, built, ready=ready)
        assert [pair.weight for pair in built.pairs] == [pytest.approx(weight)] * 3


def test_refused_look_alikes_are_not_taught(tmp_path: Path) -> None:
    built = Built()
    builder(tmp_path, Scripted()).harmless(HARMLESS, built)
    assert "No, that is wrong." not in {pair.chosen for pair in built.pairs}
    assert built.counts["harmless"] == 3


def test_the_models_own_refusals_can_be_chosen(tmp_path: Path) -> None:
    built = Built()
    builder(tmp_path, Scripted(), refusals="model").harmful(HARMFUL, built)
    assert {pair.chosen for pair in built.pairs} == {"I would rather not, but here is a safer idea."}
    assert all(message["role"] != "system" for pair in built.pairs for message in pair.messages)


def test_general_answers_are_anchors_marked_where_they_were_cut(tmp_path: Path) -> None:
    built = Built()
    builder(tmp_path, Scripted()).general(prompts("general", "name a city", "name a river"), built)
    assert [example.truncated for example in built.examples] == [True, True]
    assert not built.pairs


def test_a_second_call_asks_nothing_again_and_builds_the_same(tmp_path: Path) -> None:
    engine = Scripted()
    first, second = Built(), Built()
    builder(tmp_path, engine).harmful(HARMFUL, first)
    asked = engine.asked
    builder(tmp_path, engine).harmful(HARMFUL, second)
    assert engine.asked == asked
    assert first.pairs == second.pairs


def test_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    engine = Scripted()
    first, second = Built(), Built()
    builder(tmp_path, engine).harmful(HARMFUL, first)
    path = tmp_path / "harmful-0-0.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    builder(tmp_path, engine).harmful(HARMFUL, second)
    assert first.pairs == second.pairs


def test_interleaving_takes_categories_in_turn_and_ignores_the_order_given() -> None:
    order = interleave(HARMFUL, 0)
    assert [p.category for p in order[:2]] != [order[0].category] * 2
    assert interleave(HARMFUL[::-1], 0) == order
    assert sorted(p.id for p in order) == sorted(p.id for p in HARMFUL)


def test_short_refusals_share_their_opening_and_keep_the_categorys_reason(tmp_path: Path) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), refusals="short", taught=1.0)
    make.harmful(HARMFUL, built)
    make.harmless(HARMLESS, built)
    opening = shipped_refusals().short_opening
    harmful = [pair for pair in built.pairs if pair.kind == "harmful"]
    reasons = {pair.chosen.removeprefix(opening + " ") for pair in harmful}
    assert len(reasons) > 1
    known = {reason for words in shipped_refusals().macros.values() for reason in words.reasons}
    assert reasons <= known
    assert all(p.rejected.startswith(opening) for p in built.pairs if p.kind == "harmless")


def test_ordinary_requests_can_be_pairs_too(tmp_path: Path) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), ordinary=2, taught=1.0, weights={"ordinary": 0.25, "harmful": 2})
    make.harmful(HARMFUL, built)
    asked = prompts("general", "name a city", "name a river", "name a lake", "tell me how to steal a base")
    make.ordinary(asked, built)
    own = [pair for pair in built.pairs if pair.kind == "ordinary"]
    assert len(own) == built.counts["ordinary"] == 2
    assert all(pair.chosen.startswith("Certainly") and pair.weight == 0.25 for pair in own)
    assert {pair.rejected for pair in own} <= {refusal_for(prompt) for prompt in asked}
    assert {pair.weight for pair in built.pairs if pair.kind == "harmful"} == {2.0}


def test_short_refusals_without_their_reason_are_cut_and_do_not_end(tmp_path: Path) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), refusals="short", taught=1.0, reasons=0.5, harmless=60)
    make.harmful(HARMFUL, built)
    make.harmless(MANY, built)
    opening = shipped_refusals().short_opening
    sides = [(p.chosen, p.meta["chosen_truncated"]) for p in built.pairs if p.kind == "harmful"]
    sides += [(p.rejected, p.meta["rejected_truncated"]) for p in built.pairs if p.kind == "harmless"]
    assert all(text.startswith(opening) and cut == (text == opening) for text, cut in sides)
    assert 0.3 < sum(cut for _, cut in sides) / len(sides) < 0.7


def test_an_ordinary_request_is_answered_once_for_pair_and_anchor(tmp_path: Path) -> None:
    built, engine = Built(), Scripted()
    make = builder(tmp_path, engine, ordinary=2)
    asked = prompts("general", "name a city", "name a river", "name a lake")
    make.ordinary(asked, built)
    make.general(asked, built)
    assert engine.asked == len(asked)
    chosen = {pair.id: pair.chosen for pair in built.pairs}
    assert chosen and set(chosen.values()) <= {example.completion for example in built.examples}


def test_kept_answers_of_pairs_are_anchors_too_where_asked(tmp_path: Path) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), ordinary=2, harmless=60, anchored=("ordinary",), general=3)
    asked = prompts("general", "name a city", "name a river", "name a lake", "name a hill", "name a sea")
    make.harmless(MANY, built)
    make.ordinary(asked, built)
    own = [pair for pair in built.pairs if pair.kind == "ordinary"]
    assert [example.messages for example in built.examples] == [pair.messages for pair in own]
    make.general(asked, built)
    assert len({example.id for example in built.examples}) == len(built.examples) == len(own) + 3
    assert built.counts["general"] == 3


@pytest.mark.parametrize(("asked", "weight"), [(0.02, 0.02), (3.0, 1 / 30)])
def test_a_weight_of_their_own_lifts_look_alikes_over_no_share(
    tmp_path: Path, asked: float, weight: float
) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), harmless=60, weights={"harmless": asked})
    make.harmful(HARMFUL, built)
    make.harmless(MANY, built)
    assert [p.weight for p in built.pairs if p.kind == "harmless"] == [pytest.approx(weight)] * 60


@pytest.mark.parametrize(("share", "weight"), [(0.25, 4 / 3 / 60), (0.5, 4 / 60), (1.0, 1.0)])
def test_the_share_of_look_alikes_is_the_recipes(tmp_path: Path, share: float, weight: float) -> None:
    built = Built()
    make = builder(tmp_path, Scripted(), harmless_share=share, harmless=60)
    make.harmful(HARMFUL, built)
    make.harmless(MANY, built)
    assert [p.weight for p in built.pairs if p.kind == "harmless"] == [pytest.approx(weight)] * 60
