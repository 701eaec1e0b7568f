"""The plan of a run: who is trained on with whom, in which order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.methods import METHODS
from safepref.training import Plan, TrainingPair, make_plan, pair_rows

sizes = st.integers(2, 40)


def plan(pairs: int, name: str = "dpo", examples: int = 0, **changes: object) -> Plan:
    return make_plan(pairs, examples, METHODS[name], tiny.settings(**changes))


def order(planned: Plan) -> list[int]:
    return [pair for batch in planned.batches for pair in batch.pairs]


@settings(max_examples=60, deadline=None)
@given(pairs=sizes, batch=st.integers(2, 9), epochs=st.integers(1, 3), name=st.sampled_from(list(METHODS)))
def test_every_epoch_passes_every_pair_once(pairs: int, batch: int, epochs: int, name: str) -> None:
    planned = plan(pairs, name, batch_size=batch, epochs=epochs)
    walked = order(planned)
    assert len(walked) == pairs * epochs
    for epoch in range(epochs):
        assert sorted(walked[epoch * pairs : (epoch + 1) * pairs]) == list(range(pairs))
    sizes = [len(group.pairs) for group in planned.batches]
    coupled = METHODS[name].batch_coupled
    assert max(sizes) <= batch + coupled
    assert min(sizes) >= 2 or not coupled


@settings(max_examples=30, deadline=None)
@given(pairs=sizes, batch=st.integers(1, 9))
def test_how_pairs_are_batched_does_not_change_their_order(pairs: int, batch: int) -> None:
    one = plan(pairs, examples=7, anchor=1.0, batch_size=1, accumulation=batch)
    many = plan(pairs, examples=7, anchor=1.0, batch_size=batch)
    assert order(one) == order(many)
    assert one.steps == many.steps
    joined = [
        tuple(example for small in one.batches[i : i + batch] for example in small.examples)
        for i in range(0, len(one.batches), batch)
    ]
    assert joined == [large.examples for large in many.batches]


def test_epochs_differ_and_seeds_differ_and_nothing_else_does() -> None:
    walked = order(plan(30))
    assert walked[:30] != walked[30:]
    assert walked == order(plan(30))
    assert walked != order(plan(30, seed=4))


@pytest.mark.parametrize(("epochs", "trained"), [(0.5, 10), (1.25, 25), (0.001, 1)])
def test_parts_of_an_epoch(epochs: float, trained: int) -> None:
    assert len(order(plan(20, epochs=epochs))) == trained


def test_last_pair_of_a_coupled_method_is_not_left_alone() -> None:
    assert [len(batch.pairs) for batch in plan(9, "aot", epochs=1).batches] == [4, 5]
    assert [len(batch.pairs) for batch in plan(9, "dpo", epochs=1).batches] == [4, 4, 1]


@settings(max_examples=60, deadline=None)
@given(pairs=sizes, batch=st.integers(2, 9))
def test_mismatched_pairs_stay_in_fixed_batches(pairs: int, batch: int) -> None:
    planned = plan(pairs, "kto", batch_size=batch, epochs=3)
    assert planned.mismatched is not None
    groups = Counter(frozenset(group.pairs) for group in planned.batches)
    assert set(groups.values()) == {3}
    sides = Counter(side for _, side in planned.mismatched)
    assert abs(sides[0] - sides[1]) <= 1
    for group in groups:
        # A rotation: nobody has its own completion, and everybody's is used once.
        assert {planned.mismatched[pair][0] for pair in group} == group
        assert all(planned.mismatched[pair][0] != pair for pair in group)
    firsts = [planned.batches[e * len(groups)].pairs for e in range(3)]
    assert len(groups) < 6 or len(set(firsts)) > 1 or planned.batches[1] != planned.batches[len(groups) + 1]


def test_mismatched_completion_stands_third_behind_the_prompt() -> None:
    pairs = tiny.tiny_pairs(6)
    planned = plan(6, "kto")
    assert planned.mismatched is not None
    for pair, row, (other, side) in zip(pairs, pair_rows(pairs, planned), planned.mismatched, strict=True):
        assert row.prompt_ids == pair.row.prompt_ids
        assert row.completions == (*pair.row.completions, pairs[other].row.completions[side])
    assert pair_rows(pairs, plan(6)) == [pair.row for pair in pairs]


def test_a_refusal_that_many_pairs_share_is_no_mismatched_completion_of_its_own_prompt() -> None:
    refusal = (5, 6, 7)
    pairs = [TrainingPair(TokenRow((1, 2, n), (refusal, (8, n))), "harmful") for n in range(10, 18)]
    pairs += [TrainingPair(TokenRow((3, 4, n), ((9, n), refusal)), "ordinary") for n in range(20, 28)]
    for row in pair_rows(pairs, plan(16, "kto")):
        assert row.completions[2] not in row.completions[:2]


@settings(max_examples=40, deadline=None)
@given(pairs=sizes, examples=st.integers(1, 30), ratio=st.none() | st.floats(0.05, 3))
def test_examples_come_at_their_ratio(pairs: int, examples: int, ratio: float | None) -> None:
    planned = plan(pairs, examples=examples, anchor=0.1, anchor_ratio=ratio, epochs=2)
    drawn = [example for batch in planned.batches for example in batch.examples]
    wanted = planned.anchor_ratio
    assert wanted == pytest.approx(examples / pairs if ratio is None else ratio)
    assert len(drawn) == pytest.approx(wanted * 2 * pairs, abs=1.001)
    counts = Counter(drawn)
    assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1
    assert len(counts) == min(examples, len(drawn))
    due = [len(batch.examples) / len(batch.pairs) for batch in planned.batches if len(batch.pairs) == 4]
    assert all(abs(a - b) <= 1 for a, b in pairwise(due))


def test_no_anchor_no_examples() -> None:
    assert not any(batch.examples for batch in plan(8, examples=5, anchor=0.0).batches)


@pytest.mark.parametrize(
    ("pairs", "name", "changes", "message"),
    [
        (0, "dpo", {}, "there are no pairs"),
        (8, "kto", {"batch_size": 1}, "kto: a micro-batch of 1 pair"),
        (1, "aot", {}, "aot: a micro-batch of 1 pair"),
    ],
)
def test_impossible_plans(pairs: int, name: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(pairs, name, **changes)


def test_rows_are_checked() -> None:
    row = tiny.tiny_pairs(1)[0].row
    same = type(row)(row.prompt_ids, (row.completions[0], row.completions[0]))
    with pytest.raises(InputError, match="same tokens"):
        TrainingPair(same)
    with pytest.raises(InputError, match="1 completions; give chosen, then rejected"):
        TrainingPair(type(row)(row.prompt_ids, row.completions[:1]))
    with pytest.raises(InputError, match="weight is nan"):
        TrainingPair(row, weight=float("nan"))
