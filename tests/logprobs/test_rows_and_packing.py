"""Rows without a log-probability are refused; a plan scores every token once, behind its own past only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs.packing import dense_mask, fill, pack, pad, shape_of, shared_beginning, visible

LENGTHS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 6), min_size=1, max_size=3)), min_size=1, max_size=8
)


@pytest.mark.parametrize(
    ("prompt", "completions", "words"),
    [
        ((), ((1,),), "prompt_ids is empty"),
        ((1,), (), "completions is empty"),
        ((1,), ((2,), ()), "completion 1 of 2 has no tokens"),
        ((1, -100), ((2,),), "token id -100 is negative"),
        ((1,), ((2,), (-1,)), "token id -1 is negative"),
    ],
)
def test_row_without_a_log_prob_is_refused(
    prompt: tuple[int, ...], completions: tuple[tuple[int, ...], ...], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        TokenRow(prompt, completions)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_fill_holds_everything_once_within_the_budget(sizes: list[int], budget: int) -> None:
    groups = fill(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    for group in groups:
        assert sum(sizes[i] for i in group) <= budget or len(group) == 1
    # First fit never leaves two groups that would go into one.
    loads = sorted(sum(sizes[i] for i in group) for group in groups)
    assert len(loads) < 2 or loads[0] + loads[1] > budget


def build(lengths: list[tuple[int, list[int]]]) -> list[TokenRow]:
    """Rows whose every token is a different number, so that a mix-up is visible."""
    counter = iter(range(10_000))
    return [
        TokenRow(
            tuple(next(counter) for _ in range(prompt)),
            tuple(tuple(next(counter) for _ in range(length)) for length in completions),
        )
        for prompt, completions in lengths
    ]


@given(LENGTHS, st.integers(1, 40), st.booleans(), st.integers(0, 12))
def test_plan_scores_every_token_once_behind_its_own_past(
    lengths: list[tuple[int, list[int]]], budget: int, packed: bool, common: int
) -> None:
    beginning = tuple(range(20_000, 20_000 + common))
    rows = [TokenRow(beginning + row.prompt_ids, row.completions) for row in build(lengths)]
    shape = shape_of(rows)
    pieces = (pack if packed else pad)(rows, range(len(rows)), shape, budget)
    expected = {}
    slot = 0
    for row in rows:
        for completion in row.completions:
            sequence = row.prompt_ids + completion
            for token in range(len(row.prompt_ids), len(sequence)):
                expected[slot] = sequence[: token + 1]
                slot += 1
    seen = {}
    for piece in pieces:
        flat = piece.input_ids.flatten().tolist()
        width = piece.input_ids.shape[1]
        mask = dense_mask(piece)[0, 0] if packed else None
        for predictor, target, number in zip(
            piece.predictors.tolist(), piece.targets.tolist(), piece.slots.tolist(), strict=True
        ):
            if mask is None:
                past = flat[predictor // width * width : predictor + 1]
            else:
                past = [flat[i] for i in mask[predictor].nonzero()[:, 0].tolist()]
                assert piece.position_ids is not None
                assert piece.position_ids[0, predictor] == len(past) - 1
            assert number not in seen
            seen[number] = (*past, target)
    assert seen == expected
    assert shape.total == len(expected) == int(shape.counts.sum())


def test_visible_is_prompt_plus_own_past() -> None:
    got = visible(torch.tensor([0, 0, 1, 1, 2]))
    assert got.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_packing_runs_the_prompt_once() -> None:
    rows = build([(100, [10, 20]), (50, [5, 5])])
    shape = shape_of(rows)
    (piece,) = pack(rows, [0, 1], shape, 1000)
    # Of each completion all but the last token, which predicts nothing.
    assert piece.input_ids.numel() == 100 + 9 + 19 + 50 + 4 + 4 == rows[0].span + rows[1].span
    assert sum(p.input_ids.numel() for p in pad(rows, [0, 1], shape, 1000)) >= 109 + 119 + 54 + 54


def test_a_common_beginning_is_run_once_and_each_prompt_keeps_a_token() -> None:
    trunk = tuple(range(500, 520))
    rows = [TokenRow(trunk + own, ((1, 2, 3), (4, 5))) for own in ((7,), (8, 9), (7, 9))]
    (piece,) = pack(rows, [0, 1, 2], shape_of(rows), 1000)
    assert piece.trunk == 20
    assert piece.input_ids.numel() == 20 + 5 + 3 * (2 + 1)
    (whole,) = pack(rows, [0, 1, 2], shape_of(rows), 1000, share=False)
    assert whole.trunk == 0 and whole.input_ids.numel() == sum(row.span for row in rows)
    # A prompt that is the beginning itself keeps its last token; few common tokens are not worth it.
    assert shared_beginning([trunk, (*trunk, 1)]) == 19
    assert shared_beginning([trunk[:7], trunk]) == shared_beginning([trunk]) == 0


def test_pad_with_budget_one_needs_no_mask() -> None:
    rows = build([(3, [2, 4]), (5, [1])])
    pieces = pad(rows, [0, 1], shape_of(rows), 1)
    assert [tuple(piece.input_ids.shape) for piece in pieces] == [(1, 6), (1, 5), (1, 4)]
    assert all(piece.attention_mask is None for piece in pieces)
