"""Truncation: what is kept, what is refused, and that all is counted."""

from __future__ import annotations

import pytest
from chat_tokenizers import make

from safepref.data.limits import Limits, Truncation, fit_completion, fit_pair, fit_prompt, render_pairs
from safepref.data.records import Pair
from safepref.data.render import RenderedPair, render_pair, renderer
from safepref.errors import InputError

IDS = list(range(100, 120))


def test_prompts_keep_their_first_token_and_their_end() -> None:
    count = Truncation()
    assert fit_prompt(IDS, Limits(max_prompt=20), count) == IDS
    assert fit_prompt(IDS, Limits(max_prompt=5), count) == [100, 116, 117, 118, 119]
    assert fit_prompt(IDS, Limits(max_prompt=5, overflow="refuse"), count) is None
    assert (count.prompts_cut, count.refused) == (1, 1)


def test_completions_are_cut_at_the_end() -> None:
    count = Truncation()
    assert fit_completion(IDS, Limits(max_completion=20), count) == IDS
    assert fit_completion(IDS, Limits(max_completion=3), count) == [100, 101, 102]
    assert count.completions_cut == 1


def test_pair_whose_answers_differ_only_behind_the_limit_is_refused() -> None:
    count = Truncation()
    limits = Limits(max_completion=2)
    assert fit_pair(RenderedPair([1], [2, 3, 4], [2, 3, 5]), limits, count) is None
    assert fit_pair(RenderedPair([1], [2, 3, 4], [2, 9]), limits, count) == RenderedPair([1], [2, 3], [2, 9])
    assert (count.refused, count.completions_cut) == (1, 1)


def test_pairs_are_rendered_and_counted() -> None:
    tokenizer = make("llama3")
    pairs = [
        Pair(str(i), ({"role": "user", "content": "bake " * n},), "No.", "Yes, " * m, "preference")
        for i, (n, m) in enumerate([(1, 1), (300, 1), (1, 300)])
    ]
    rendered, count = render_pairs(tokenizer, pairs, Limits(64, 32), system="Be kind.")
    assert [index for index, _ in rendered] == [0, 1, 2]
    whole = render_pair(tokenizer, pairs[1].messages, "No.", "Yes, ", "Be kind.")
    assert rendered[1][1].prompt_ids == [whole.prompt_ids[0], *whole.prompt_ids[-63:]]
    assert rendered[1][1].chosen_ids == whole.chosen_ids
    assert len(rendered[2][1].rejected_ids) == 32
    assert renderer(tokenizer, "Be kind.").end_id not in rendered[2][1].rejected_ids
    assert (count.rows, count.prompts_cut, count.refused, count.completions_cut) == (3, 1, 0, 1)
    kept, count = render_pairs(tokenizer, pairs, Limits(64, 32, "refuse"))
    assert [index for index, _ in kept] == [0, 2]
    assert str(count) == "3 rows: 0 prompts cut, 1 refused as too long, 1 completions cut"


@pytest.mark.parametrize("limits", [{"max_prompt": 1}, {"max_completion": 0}])
def test_limits_that_leave_nothing(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least"):
        Limits(**limits)
