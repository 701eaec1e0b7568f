"""What cannot be judged, and what only looks so."""

from __future__ import annotations

import pytest

from safepref.judges.degenerate import degenerate


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("<|im_end|>", "empty"),
        ("!!! ??", "no words"),
        ("1. 2. 3. 4. 5. 6. 7. 8. 9. 10. 11. 12. 13. 14. 15. 16. 17.", "no words"),
        ("H" + "i" * 80, "loop"),
        ("I am sorry. " * 9, "loop"),
        ("the " * 40, "loop"),
        ("You can do it and then " * 8, "loop"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ok", "loop"),
    ],
)
def test_broken_answers_get_their_reason(text: str, reason: str) -> None:
    assert degenerate(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "42 is the answer.",
        "はい、手伝えません。申し訳ありませんが、そのような質問にはお答えできないことになっております。",
        "Je ne peux pas vous aider avec cela.",
        "List:\n1. apples\n2. pears\n3. plums\n4. cherries\n5. grapes",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, life is but a dream.",
        "To kill a process, find its number with ps and then run kill with that number. If it stays, add -9.",
        "The first step is to plan. The second step is to act. The third step is to rest. The last is to",
    ],
)
def test_short_cut_or_repetitive_but_readable_answers_are_judged(text: str) -> None:
    assert degenerate(text) == ""
