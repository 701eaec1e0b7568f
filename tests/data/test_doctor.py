"""The data doctor finds each thing that is wrong, names its row, and says nothing of good data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import make

from safepref.data.doctor import (
    Finding,
    check_examples,
    check_file,
    check_pairs,
    check_prompts,
    has_errors,
)
from safepref.data.limits import Limits
from safepref.data.readers import read_pairs
from safepref.data.records import Example, Pair, Prompt, content_id
from safepref.data.splits import split_by_template

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def jsonl(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return jsonl


def pair(text: str, chosen: str = "I can't.", rejected: str = "Sure.", **more: Any) -> Pair:
    messages = more.pop("messages", ({"role": "user", "content": text},))
    return Pair(repr((text, chosen, rejected)), messages, chosen, rejected, **{"kind": "preference", **more})


def prompt(text: str, **more: Any) -> Prompt:
    return Prompt(content_id(text), ({"role": "user", "content": text},), "harmful", **more)


LONG = (
    "Some friends of mine and I would like to enter the old factory on the hill at night, past two guards and"
    " a dog, and take the copper wires out of its walls; which tools and which clothes do we need?"
)


def problems(findings: list[Finding], severity: str | None = None) -> list[tuple[int, str, str]]:
    return [(f.row, f.field, f.problem) for f in findings if severity in (None, f.severity)]


GOOD = {
    "prompt": "How do I pick a lock?",
    "chosen": "I can't help with that.",
    "rejected": "Sure, take a pin.",
}


def test_good_data_is_clean(write: Write) -> None:
    assert check_file(write(GOOD, {**GOOD, "prompt": "Where is my key?"})) == []
    assert check_file(write({"prompt": "How do I pick a lock?", "category": "crime_theft"})) == []
    pairs = [pair("How do I pick a lock?"), pair("Where is my key?")]
    assert check_pairs(pairs, make("llama3"), evaluation=[prompt("Bread")], limits=Limits()) == []


def test_every_bad_row_is_named_not_only_the_first(write: Write) -> None:
    path = write(
        GOOD,
        {**GOOD, "rejected": GOOD["chosen"]},
        {**GOOD, "chosen": ""},
        {"prompt": "x", "chosen": "y"},
        {**GOOD, "chosen": 7},
        {**GOOD, "prompt": [{"role": "robot", "content": "x"}]},
        {**GOOD, "prompt": "Where is my key?"},
    )
    findings = check_file(path)
    assert [(f.row, f.field, f.severity) for f in findings] == [
        (2, "rejected", "error"),
        (3, "chosen", "error"),
        (4, "rejected", "error"),
        (5, "chosen", "error"),
        (6, "prompt[0].role", "error"),
    ]
    assert has_errors(findings)
    for finding in findings:
        text = str(finding)
        assert text.startswith(f"{path}:{finding.row}: {finding.field}: ")
        assert "\n" not in text
        assert finding.mend in text
        assert json.loads(json.dumps(finding.to_json()))["row"] == finding.row


def test_broken_lines_of_a_prompt_file(write: Write) -> None:
    path = write({"prompt": "x"}, {"prompt": None}, {"text": " "})
    path.write_text(path.read_text() + "{oops\n")
    assert [f.row for f in check_file(path)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("bad", "row", "field", "words", "severity"),
    [
        (pair("x", rejected="I can't."), 2, "rejected", "equal to chosen", "error"),
        (pair("x", rejected="i can't"), 2, "rejected", "but for case", "warning"),
        (pair("x", chosen="  "), 2, "chosen", "empty", "error"),
        (pair("x", chosen=None), 2, "chosen", "empty or not text", "error"),  # type: ignore[arg-type]
        (pair("x", chosen="No. "), 2, "chosen", "white space", "warning"),
        (pair("x", messages=()), 2, "messages", "no messages", "error"),
        (
            pair("x", messages=({"role": "bot", "content": "x"},)),
            2,
            "messages[0].role",
            "wrong role",
            "error",
        ),
        (pair("say <|eot_id|>"), 2, "messages[0]", "special token <|eot_id|>", "warning"),
        (pair("x", chosen="[INST] no"), 2, "chosen", "special token [INST]", "warning"),
        (pair("a\x00b"), 2, "messages[0]", "control character U+0000", "warning"),
        (pair("a\ufffdb"), 2, "messages[0]", "U+FFFD", "warning"),
        (pair("x", rejected="\ud83d"), 2, "rejected", "surrogate", "error"),
        (pair("How do I pick a lock?"), 2, "", "repeats row 1", "warning"),
        (
            pair("How do I pick a lock?", "Sure.", "I can't."),
            2,
            "chosen",
            "prefers the opposite of row 1",
            "error",
        ),
    ],
)
def test_single_defects(bad: Pair, row: int, field: str, words: str, severity: str) -> None:
    findings = check_pairs([pair("How do I pick a lock?"), bad], make("llama3"))
    hits = [f for f in findings if f.row == row and f.field == field and words in f.problem]
    assert hits, problems(findings)
    assert hits[0].severity == severity


def test_a_pair_read_from_a_file_is_named_by_its_own_row(write: Write) -> None:
    path = write(GOOD, GOOD, {**GOOD, "prompt": "Where is my key?", "chosen": "Here.\x07"})
    found = check_pairs([pair("What is a door?", chosen="A \x07 door."), *read_pairs(path)], file="all.jsonl")
    assert [(f.file, f.row) for f in found if f.field] == [("all.jsonl", 1), (str(path), 3)]
    repeat = next(f for f in found if not f.field)
    assert (repeat.file, repeat.row, repeat.problem) == (str(path), 2, "repeats row 1")


def test_anchor_examples_are_checked_like_pairs() -> None:
    def example(text: str, completion: str) -> Example:
        return Example(content_id(text), ({"role": "user", "content": text},), completion)

    rows = [
        example("Where is my key?", "In the drawer."),
        example("How do I pick a lock?", "Ask a smith."),
        example("What is a door?", "  "),
        example("What is a wall?", "<|im_end|>Bricks."),
        example("Where is my key", "Here."),
        example("What is a long wall?", "brick" + " brick" * 40),
    ]
    limits = Limits(max_prompt=64, max_completion=32)
    found = check_examples(rows, make("chatml"), evaluation=[prompt("how do I pick a lock")], limits=limits)
    assert [(f.row, f.field, f.severity) for f in found] == [
        (2, "prompt", "error"),
        (3, "completion", "error"),
        (4, "completion", "warning"),
        (5, "prompt", "warning"),
        (6, "completion", "warning"),
    ]


def test_balance() -> None:
    harmful = [pair(f"h{i}", kind="harmful", category="abcd"[i % 4]) for i in range(20)]
    harmless = [pair(f"s{i}", kind="harmless") for i in range(10)]
    assert check_pairs(harmful + harmless) == []
    (finding,) = check_pairs(harmful)
    assert "no harmless pair" in finding.problem
    (finding,) = check_pairs(harmful + [replace(p, weight=1.5) for p in harmless])
    assert "43% of the pairs are harmless" in finding.problem
    skewed = [replace(p, category="a") if i % 2 else p for i, p in enumerate(harmful)]
    (finding,) = check_pairs(skewed + harmless)
    assert "60% of the harmful pairs are a" not in finding.problem
    assert "of the harmful pairs are a" in finding.problem
    assert not has_errors([finding])


def test_evaluation_prompts_in_training() -> None:
    evaluation = [
        prompt("How do I pick a lock without a key?"),
        prompt(LONG),
        prompt("Write a poem for my club"),
    ]
    pairs = [
        pair("how do I pick a lock without a KEY"),
        pair(f"Please: {LONG}"),
        pair("How do I pick flowers in May?"),
        pair("Where is the bread?"),
    ]
    findings = check_pairs(pairs, evaluation=evaluation)
    assert [(f.row, f.severity) for f in findings] == [(1, "error"), (2, "error"), (3, "error")]
    assert "also stands in evaluation" in findings[0].problem
    assert "nearly an evaluation prompt" in findings[1].problem
    assert 'template "how do i pick"' in findings[2].problem


def test_carried_templates_are_trusted() -> None:
    """A sample of a clean split stays clean, though its families found anew could come out larger."""
    texts = [
        f"{a} the {b} {c}"
        for a in ("Open", "Break", "Take", "Hide")
        for b in ("red", "old")
        for c in ("a b", "c d", "e f")
    ]
    parts = split_by_template([prompt(t) for t in texts], {"train": 0.5, "report": 0.5})
    pairs = [pair(p.text, template=p.template) for p in parts["train"]]
    assert not has_errors(check_pairs(pairs, evaluation=parts["report"]))
    assert not has_errors(check_prompts([*parts["train"], *parts["report"]]))
    moved = replace(parts["train"][0], split="report")
    findings = check_prompts([*parts["train"][1:], moved, *parts["report"]])
    assert any("template" in f.problem for f in findings) or moved.template not in {
        p.template for p in parts["train"][1:]
    }


def test_prompts_in_two_splits() -> None:
    findings = check_prompts(
        [
            prompt("How do I pick a lock?", split="train"),
            prompt("how do i pick a lock", split="report"),
            prompt("how do i pick a LOCK", split="report"),
            prompt("How do I pick flowers?", split="train"),
        ]
    )
    assert [(f.row, f.severity) for f in findings] == [(1, "error"), (2, "error"), (3, "error"), (4, "error")]
    assert "stands in report and, at row 1, in train" in findings[1].problem
    assert "also stands in report" in findings[3].problem
    # Variants of one request under attacks are meant to be alike.
    same = [prompt("a b c d e", attack="dan"), prompt("a b c d e", attack="suffix"), prompt("a b c d e")]
    assert check_prompts(same) == []


def test_lengths_and_boundary() -> None:
    tokenizer = make("chatml")
    pairs = [pair("bread " * 100), pair("x", chosen="no " * 60), pair("y", chosen="\n\nNo")]
    findings = check_pairs(pairs, tokenizer, limits=Limits(40, 40))
    found = {(f.row, f.field): f.problem for f in findings}
    assert "tokens, more than the limit of 40" in found[(1, "prompt")]
    assert "tokens, more than the limit of 40" in found[(2, "chosen")]
    assert (3, "chosen") in found
    findings = check_prompts([prompt("bread " * 100)], tokenizer, limits=Limits(40, 40))
    assert [(f.row, f.field) for f in findings] == [(1, "prompt")]


def test_template_that_doubles_bos_or_end() -> None:
    from transformers import PreTrainedTokenizerFast

    def with_template(template: str) -> Any:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=make("llama3").backend_tokenizer)
        tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
        tokenizer.chat_template = template
        return tokenizer

    good = make("llama3").chat_template
    findings = check_pairs([pair("x")], with_template("{{ bos_token }}" + good))
    assert [(f.row, f.problem) for f in findings] == [(1, "begins with BOS twice")]
    doubled = good.replace("| trim", "| trim + ('<|eot_id|>' if m['role'] == 'assistant' else '')")
    findings = check_pairs([pair("x")], with_template(doubled))
    assert not has_errors(
        findings
    )  # the first end of turn ends it: what the template writes behind is left off


def test_notes_of_the_template_are_passed_on() -> None:
    findings = check_pairs([pair("x")], make("plain"))
    assert findings
    assert all(f.row == 0 and f.severity == "warning" for f in findings)
    assert any("no chat template" in f.problem for f in findings)


def test_implied_prompts_of_plain_text_are_said(write: Write) -> None:
    findings = check_file(write({"chosen": "The sky is blue", "rejected": "The sky is black"}))
    assert [(f.severity, f.field) for f in findings] == [("warning", "prompt")]


@pytest.mark.shared
def test_real_preferences(shared_data: Path) -> None:
    findings = check_file(shared_data / "preferences/hh_rlhf_harmless.jsonl")
    errors = {f.row for f in findings if f.severity == "error"}
    assert 1 <= len(errors) <= 20  # dialogues whose prompts part before the last turn, and empty answers
    assert not has_errors(check_file(shared_data / "prompts/alert.jsonl"))
