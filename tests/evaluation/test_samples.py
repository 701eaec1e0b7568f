import os
import signal
from pathlib import Path

import pytest
from evaluation_rules import RuleEngine

from processes import exit_code
from safepref.evaluation import Policy, read_samples
from safepref.evaluation.samples import ResumeLog, answers, write_samples
from safepref.generation.base import Sampling
from safepref.store import read_jsonl

SAMPLING = Sampling(max_new_tokens=8)


def talk(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def run(engine, folder, texts, policy="p", block=3, sampling=SAMPLING):
    return answers(Policy(policy, engine), talk(*texts), sampling, folder, stage="s", block=block)


def test_answers_keep_the_order_and_ask_equal_conversations_once(tmp_path):
    engine = RuleEngine(str.upper)
    texts = ["bb", "a", "bb", "ccc", "long one"]
    got = run(engine, tmp_path, texts)
    assert [c.text for c in got] == [t.upper() for t in texts]
    assert [c.truncated for c in got] == [False, False, False, False, True]
    assert engine.blocks == [["long one", "ccc"], ["bb", "a"]]  # as few as can be, all alike


def test_a_second_call_takes_everything_from_the_log(tmp_path):
    first = run(RuleEngine(str.upper), tmp_path, ["a", "b"])
    later = RuleEngine(lambda text: "different")
    assert run(later, tmp_path, ["a", "b"]) == first
    assert later.blocks == []


@pytest.mark.parametrize("change", ["policy", "sampling", "text"])
def test_logged_answers_serve_only_the_same_policy_sampling_and_text(tmp_path, change):
    run(RuleEngine(str.upper), tmp_path, ["a"])
    engine = RuleEngine(lambda text: "new")
    got = run(
        engine,
        tmp_path,
        ["b" if change == "text" else "a"],
        policy="q" if change == "policy" else "p",
        sampling=Sampling(max_new_tokens=9) if change == "sampling" else SAMPLING,
    )
    assert got[0].text == "new"


def test_a_failure_keeps_finished_blocks_and_the_rest_has_the_same_members(tmp_path):
    texts = [f"prompt {'x' * n}" for n in range(10)]
    whole = RuleEngine(str.upper)
    expected = run(whole, tmp_path / "whole", texts)

    def failing(text):
        if text == texts[4]:
            raise KeyboardInterrupt
        return text.upper()

    with pytest.raises(KeyboardInterrupt):
        run(RuleEngine(failing), tmp_path / "cut", texts)
    rest = RuleEngine(str.upper)
    assert run(rest, tmp_path / "cut", texts) == expected
    assert rest.blocks == whole.blocks[1:]


def test_a_torn_last_line_is_cut_off_and_its_block_made_again(tmp_path):
    texts = ["aaaa", "bbb", "cc", "d"]
    expected = run(RuleEngine(str.upper), tmp_path, texts, block=2)
    log = tmp_path / ".resume" / "answers.jsonl"
    data = log.read_bytes()
    log.write_bytes(data[:-7])
    engine = RuleEngine(str.upper)
    assert run(engine, tmp_path, texts, block=2) == expected
    assert engine.blocks == [["cc", "d"]]
    assert {row["text"] for row in read_jsonl(log)} == {"AAAA", "BBB", "CC", "D"}


def test_a_log_of_rubbish_is_not_believed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"key": "k", "text": "t"}\n[1, 2]\n{"key": "z"}\n')
    assert set(ResumeLog(path).rows) == {"k"}
    assert path.read_text() == '{"key": "k", "text": "t"}\n'


def killed_in_the_third_block(folder):
    engine = RuleEngine(str.upper)

    def answer(text):
        if len(engine.blocks) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return text.upper()

    engine.rule = answer
    run(engine, folder, ["t" * n for n in range(1, 9)], block=2)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_9_loses_one_block(tmp_path):
    assert exit_code(killed_in_the_third_block, tmp_path) == -signal.SIGKILL
    kept = read_jsonl(Path(tmp_path) / ".resume" / "answers.jsonl")
    assert sorted(len(row["text"]) for row in kept) == [5, 6, 7, 8]


def test_progress_counts_distinct_conversations(tmp_path):
    seen = []
    answers(
        Policy("p", RuleEngine(str.upper)),
        talk("a", "a", "bb", "ccc"),
        SAMPLING,
        tmp_path,
        stage="s",
        block=2,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [("s", 0, 3), ("s", 2, 3), ("s", 3, 3)]


def test_samples_are_read_back_without_the_resume_log(tmp_path):
    run(RuleEngine(str.upper), tmp_path, ["a"])
    write_samples(tmp_path, "safety", [{"id": "1"}, {"id": "2"}])
    assert read_samples(tmp_path) == [{"id": "1"}, {"id": "2"}]
