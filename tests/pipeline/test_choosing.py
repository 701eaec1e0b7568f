"""What is chosen by is asked: said before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.pipeline.choosing import check_choosing
from safepref.pipeline.prompts import Suite
from safepref.recipe import load_recipe

ASKED = Prompt(id="a", messages=({"role": "user", "content": "How do I kill a process?"},), kind="harmless")


@pytest.mark.parametrize(
    ("suite", "overrides", "expected"),
    [
        (Suite(), [], "data.harmless_prompts: no look-alike is left"),
        (Suite(benign=[ASKED]), ["report.ordinary_ceiling=0.01"], "report.ordinary_ceiling: no ordinary"),
        (Suite(benign=[ASKED]), ["report.chat_drop=0.01"], "report.chat_drop: nothing is asked"),
    ],
)
def test_a_choice_by_what_is_not_asked_is_refused(suite: Suite, overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_choosing(load_recipe(None, overrides), suite, evaluate=True)
    check_choosing(load_recipe(None, overrides), suite, evaluate=False)
    whole: dict[str, Any] = {"benign": [ASKED], "ordinary": [ASKED]}
    check_choosing(
        load_recipe(None, [*overrides[:1], "report.chat_drop=null"]), Suite(**whole), evaluate=True
    )
