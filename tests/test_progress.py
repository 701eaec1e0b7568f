"""Progress without a terminal: few lines, whatever the total was guessed to be."""

from __future__ import annotations

import pytest

from safepref.progress import duration, track


def test_going_beyond_an_estimated_total_writes_no_flood(capsys: pytest.CaptureFixture[str]) -> None:
    with track("answers", 5) as advance:
        for _ in range(200):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines and len(lines) <= 3
    assert any("5/5" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")]
)
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
