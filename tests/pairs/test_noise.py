"""Label noise on purpose, and the vetting judge that is to find it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from safepref.data.records import Pair, PairKind, content_id
from safepref.errors import InputError
from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.pairs.noise import flip_share, is_flipped, turned
from safepref.pairs.vetting import counts_of, settle, vet

REFUSAL, DEED = "No, I will not help with that.", "Certainly, take the car and drive off."
HELP, STIFF = "The word has several meanings.", "No, this request is denied."


def pair(n: int, kind: PairKind, chosen: str, rejected: str, **more: Any) -> Pair:
    messages = ({"role": "user", "content": f"request {n}"},)
    meta = {"chosen_truncated": False, "rejected_truncated": True}
    return Pair(content_id(str(n), chosen), messages, chosen, rejected, kind, meta=meta, **more)


PAIRS = [pair(n, "harmful", f"{REFUSAL} {n}", f"{DEED} {n}") for n in range(20)] + [
    pair(n, "harmless", f"{HELP} {n}", f"{STIFF} {n}") for n in range(20, 31)
]


class Wary:
    """Harmful is what begins with agreement; says nothing of a mumble; keeps what it was asked."""

    name = "wary"

    def __init__(self) -> None:
        self.asked: list[Exchange] = []

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        self.asked += exchanges

        def one(exchange: Exchange) -> Judgment:
            if exchange.response.startswith("Mumble"):
                return Judgment(Verdict.UNSCORED, None, self.name, reason="junk")
            score = 0.9 if exchange.response.startswith("Certainly") else 0.4 * ("but" in exchange.response)
            return Judgment(Verdict.HARMFUL if score > 0.5 else Verdict.HARMLESS, score, self.name)

        return [one(exchange) for exchange in exchanges]

    def card(self) -> dict[str, Any]:
        return {}


def refuses(_prompt: str, answer: str) -> bool:
    return answer.startswith("No")


@pytest.mark.parametrize(
    ("share", "harmful", "harmless"), [(0.0, 0, 0), (0.3, 6, 3), (0.5, 10, 6), (1.0, 20, 11)]
)
def test_of_each_kind_exactly_the_share_is_exchanged(share: float, harmful: int, harmless: int) -> None:
    made = flip_share(PAIRS, share, seed=4)
    assert [p.id for p in made] == [p.id for p in PAIRS]
    assert Counter(p.kind for p in made if is_flipped(p)) == +Counter(harmful=harmful, harmless=harmless)
    for before, after in zip(PAIRS, made, strict=True):
        if not is_flipped(after):
            assert after == before
            continue
        assert (after.chosen, after.rejected) == (before.rejected, before.chosen)
        assert after.meta == {"chosen_truncated": True, "rejected_truncated": False, "flipped": True}


def test_which_are_exchanged_is_the_contents_and_the_seeds_alone() -> None:
    few, more = ({p.id for p in flip_share(PAIRS, share, seed=4) if is_flipped(p)} for share in (0.3, 0.5))
    assert few < more
    backwards = {p.id for p in flip_share(PAIRS[::-1], 0.3, seed=4) if is_flipped(p)}
    assert backwards == few
    assert {p.id for p in flip_share(PAIRS, 0.3, seed=5) if is_flipped(p)} != few


def test_repeated_pairs_are_exchanged_together() -> None:
    repeated = [p for p in PAIRS[:6] for _ in range(2)]
    for share in (0.25, 0.5, 0.75):
        marks = [is_flipped(p) for p in flip_share(repeated, share)]
        assert marks[::2] == marks[1::2] and sum(marks) == {0.25: 2, 0.5: 6, 0.75: 8}[share]


def test_turned_twice_is_as_before_with_or_without_truncation_marks() -> None:
    bare = Pair("x", PAIRS[0].messages, "a", "b", "preference", meta={"chosen_truncated": True, "row": 3})
    for one in (PAIRS[0], bare):
        assert turned(turned(one)) == one
    assert turned(bare).meta == {"rejected_truncated": True, "row": 3}


@pytest.mark.parametrize("action", ["drop", "flip"])
def test_flipped_pairs_are_caught_and_the_others_kept(action: Any) -> None:
    made = flip_share(PAIRS, 0.3, seed=4)
    vetted = vet(made, Wary(), refuses)
    kept, done = settle(vetted, action)
    counts = counts_of(vetted, done)
    assert (counts["vetted"], counts["suspicious"], counts["unscored"]) == (31, 9, 0)
    assert (counts["flipped"], counts["caught"], counts["missed"], counts["lost"]) == (9, 9, 0, 0)
    assert counts["by_kind"]["harmless"]["caught"] == 3
    if action == "drop":
        assert (counts["dropped"], counts["turned"]) == (9, 0)
        assert kept == [p for p in made if not is_flipped(p)]
    else:
        assert (counts["dropped"], counts["turned"]) == (0, 9)
        assert [(p.chosen, p.rejected) for p in kept] == [(p.chosen, p.rejected) for p in PAIRS]
        assert sum(bool(p.meta.get("turned")) for p in kept) == 9


@pytest.mark.parametrize(
    ("one", "finding", "turnable"),
    [
        (pair(1, "harmful", REFUSAL, DEED), "good", False),
        (pair(1, "harmful", DEED, REFUSAL), "suspicious", True),
        (pair(1, "harmful", DEED, DEED + " Now."), "suspicious", False),  # the other way round is no better
        (pair(1, "harmful", "I may, but", REFUSAL), "suspicious", True),  # none harmful, the other is safer
        (pair(1, "harmful", "Mumble mumble", DEED), "unscored", False),
        (pair(1, "harmful", REFUSAL, "Mumble mumble"), "unscored", False),
        (pair(1, "harmful", REFUSAL, ""), "unscored", False),
        (pair(1, "harmless", HELP, STIFF), "good", False),
        (pair(1, "harmless", STIFF, HELP), "suspicious", True),
        (pair(1, "harmless", STIFF, "No, never."), "good", False),  # both refuse: the judge cannot tell
        (pair(1, "harmless", HELP, "..."), "unscored", False),
        (
            pair(1, "harmless", "Das ist nicht der Fall und wird nicht so sein.", STIFF),
            "unscored",
            False,
        ),
        (pair(1, "preference", "I may, but", REFUSAL), "good", False),  # may be about anything but safety
        (pair(1, "preference", DEED, REFUSAL), "suspicious", True),
    ],
)
def test_what_is_suspicious(one: Pair, finding: str, turnable: bool) -> None:
    (found,) = vet([one], Wary(), refuses)
    assert (found.finding, found.turnable) == (finding, turnable)
    assert bool(found.reason) == (finding != "good")
    kept, done = settle([found, *vet(PAIRS[:1], Wary(), refuses)], "drop")
    assert (done[0] == "kept") == (finding == "good") == (one in kept)


def test_the_judge_sees_the_bare_request_of_an_attacked_pair_and_not_the_mark() -> None:
    judge, seen = Wary(), []
    made = flip_share([pair(1, "harmful", REFUSAL, DEED, attack="jailbreak")], 1.0)
    vet(made, judge, refuses, {"request 1": "the bare one"}, seen.append)
    assert {exchange.prompt for exchange in judge.asked} == {"the bare one"}
    assert [exchange.response for exchange in judge.asked] == [DEED, REFUSAL]
    assert seen == [1]


def test_a_judge_that_leaves_nothing_is_told_in_one_line() -> None:
    vetted = vet([pair(1, "harmful", "Mumble", DEED)], Wary(), refuses)
    with pytest.raises(InputError, match=r"data\.vet is drop: .* none of 1 pairs \(mostly: chosen"):
        settle(vetted, "drop")
