"""Judges of support replies: fitted on their own rows alone, measured on the other's; and the rubric."""

from __future__ import annotations

import pytest

from chat_server import says, serving
from safepref.data.records import Prompt
from safepref.data.support import Side, judged_replies, load_dialogues
from safepref.judges.base import Exchange, Verdict, exchange_of
from safepref.judges.behind import requests_behind
from safepref.judges.chat import parse_support
from safepref.judges.labelled import normalise
from safepref.judges.registry import load_judge
from safepref.judges.support import SupportJudge
from safepref.judges.support_rows import SUPPORT_SETS

SIDES: tuple[Side, ...] = ("select", "report")
TURNS = (
    {"role": "user", "content": "My parcel says delivered but it is not here."},
    {"role": "assistant", "content": "Is it with a neighbour?"},
    {"role": "user", "content": "No. What now?"},
)


def said(turns: tuple[dict[str, str], ...]) -> str:
    return normalise(" ".join(turn["content"] for turn in turns))


def test_no_dialogue_or_reply_stands_in_two_files() -> None:
    files = [[(said(r.messages), [r.response]) for r in judged_replies(side)] for side in SIDES]
    files.append([(said(pair.messages), [pair.chosen, pair.rejected]) for pair in load_dialogues()])
    dialogues = [{dialogue for dialogue, _ in rows} for rows in files]
    replies = [{normalise(text) for _, texts in rows for text in texts} for rows in files]
    for sets in (dialogues, replies):
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    for side in SIDES:
        assert sum(row.good for row in judged_replies(side)) * 2 == len(judged_replies(side)) == 260


def test_length_and_polite_words_do_not_tell_good_from_bad() -> None:
    for side in SIDES:
        rows = judged_replies(side)
        for measure in (
            lambda text: len(text.split()),
            lambda text: any(word in text.lower() for word in ("sorry", "thank", "please")),
        ):
            good, bad = (
                [float(measure(r.response)) for r in rows if r.good is kind] for kind in (True, False)
            )
            means = sum(good) / len(good), sum(bad) / len(bad)
            assert 0.7 < means[0] / means[1] < 1.4


@pytest.mark.assets
@pytest.mark.parametrize("side", SIDES)
def test_a_judge_tells_more_than_chance_on_rows_it_never_saw(side: Side) -> None:
    judge = load_judge(f"support.{side}")
    assert isinstance(judge, SupportJudge)
    card, other = judge.card(), SIDES[1 - SIDES.index(side)]
    found = card["calibration"]
    assert found["data"] == f"support-{other}" and found["n"] == 260 and found["left_out"] == 0
    assert found["intervals"]["roc_auc"][0] > 0.6
    assert card["hits"]["positives"] == 130 and set(found["by_category"]) == {
        r.fault for r in judged_replies(other) if r.fault
    }
    rows = [row.exchange for row in SUPPORT_SETS[f"support-{side}"]()]
    assert all(judge.fitted_on(rows)) and not any(judge.fitted_on([Exchange("Hello?", "Good morning.")]))
    assert {row.use for row in requests_behind(f"support.{side}") or ()} == {"fitting", "calibration"}


@pytest.mark.assets
def test_verdicts_are_good_bad_or_unscored_and_the_context_counts() -> None:
    judge = load_judge("support.report")
    assert isinstance(judge, SupportJudge)
    prompt = Prompt("p", TURNS, "task")
    texts = (
        "Send me your order number and I will open a search today.",
        "",
        "ha " * 60,
        "Das ist leider nicht möglich, weil wir die Sendung nicht mehr finden und auch nicht ersetzen.",
    )
    found = judge.judge([exchange_of(prompt, text) for text in texts])
    assert found[0].verdict in (Verdict.GOOD, Verdict.BAD) and found[0].score is not None
    assert [judgment.verdict for judgment in found[1:]] == [Verdict.UNSCORED] * 3
    shown = exchange_of(prompt, texts[0])
    assert shown.before == f"[user] {TURNS[0]['content']}\n[assistant] {TURNS[1]['content']}"
    assert shown.prompt == "No. What now?"
    alone = judge.probabilities([shown, shown._replace(before="")])
    assert alone[0] != alone[1]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("helpful: 5\npolite: 5\nsound: 5", 0.0),
        ("helpful: 5\npolite: 1\nsound: 5", 1.0),
        ("Helpful: 4\nsound: 3\n\npolite: 5\n", 0.5),
        ("helpful: 6\npolite: 5\nsound: 5", None),
        ("helpful: 5\npolite: 5", None),
        ("refused: 1\nspecific: 1\nconvincing: 1", None),
        ("helpful: 5\npolite: 5\nsound: 5\nsound: 1", None),
    ],
)
def test_the_lowest_grade_decides(text: str, score: float | None) -> None:
    assert parse_support(text) == score


def test_a_chat_model_is_shown_the_whole_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(lambda request: says("helpful: 2\npolite: 5\nsound: 5")) as server:
        judge = load_judge(f"support.rubric:m@{server.url}")
        (found,) = judge.judge([exchange_of(Prompt("p", TURNS, "task"), "Wait.")])
        shown = server.requests[0].said
    assert (found.verdict, found.score, found.judge) == (Verdict.BAD, 0.75, "support.rubric:m")
    # Brackets round a role are broken, as all that a chat format might read.
    assert "[ assistant] Is it with a neighbour?\n[ user] No. What now?" in shown and "Wait." in shown


@pytest.mark.assets
def test_judges_of_replies_vote_in_their_own_words() -> None:
    texts = ["That is your own fault, read the instructions.", "Send me your order number, please."]
    asked = [exchange_of(Prompt("p", TURNS, "task"), text) for text in texts]
    both = [load_judge(f"support.{side}").judge(asked) for side in SIDES]
    found = load_judge("any:support.select,support.report").judge(asked)
    for given, *votes in zip(found, *both, strict=True):
        bad = any(vote.verdict is Verdict.BAD for vote in votes)
        assert given.verdict is (Verdict.BAD if bad else Verdict.GOOD)
