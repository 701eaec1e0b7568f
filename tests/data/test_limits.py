"""Truncation: what is kept, what is refused, and that all is counted."""

from __future__ import annotations

import pytest

from safepref.data.limits import Limits, Truncation, fit_completion, fit_prompt
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


def test_counts_read_as_a_line() -> None:
    count = Truncation(rows=3, refused=1)
    fit_completion(IDS, Limits(max_completion=3), count)
    assert str(count) == "3 rows: 0 prompts cut, 1 refused as too long, 1 completions cut"


@pytest.mark.parametrize("limits", [{"max_prompt": 1}, {"max_completion": 0}])
def test_limits_that_leave_nothing(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least"):
        Limits(**limits)
