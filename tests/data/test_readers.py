"""Files of users: every format, and every bad row as one line that names file, row, field, value and mend."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safepref.data.readers import parse_dialogue, read_pairs, read_prompts
from safepref.data.records import Pair, Prompt
from safepref.data.rows import show
from safepref.errors import InputError

U = {"role": "user", "content": "How do I bake bread?"}
A = {"role": "assistant", "content": "Mix flour and water."}
B = {"role": "assistant", "content": "I cannot say."}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def jsonl(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return jsonl


FORMATS = {
    "standard": {"prompt": U["content"], "chosen": A["content"], "rejected": B["content"]},
    "conversational": {"prompt": [U], "chosen": [A], "rejected": [B]},
    "implicit prompt": {"chosen": [U, A], "rejected": [U, B]},
    "explicit prompt, whole conversations": {"prompt": [U], "chosen": [U, A], "rejected": [U, B]},
    "single message": {"prompt": [U], "chosen": [A], "rejected": B["content"]},
    "hh dialogues": {
        "chosen": f"\n\nHuman: {U['content']}\n\nAssistant: {A['content']}",
        "rejected": f"\n\nHuman: {U['content']}\n\nAssistant: {B['content']}",
    },
    "hh prompt": {
        "prompt": f"\n\nHuman: {U['content']}\n\nAssistant:",
        "chosen": A["content"],
        "rejected": B["content"],
    },
    "alert wrapper": {
        "prompt": f"### Instruction:\n{U['content']}\n### Response:\n",
        "chosen": A["content"],
        "rejected": B["content"],
    },
}


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS.keys())
def test_all_formats_give_the_same_pair(write: Write, row: dict[str, Any]) -> None:
    (pair,) = read_pairs(write(row))
    assert pair.messages == (U,)
    assert (pair.chosen, pair.rejected) == (A["content"], B["content"])
    assert pair.id == read_pairs(write(FORMATS["standard"]))[0].id
    assert pair.kind == "preference"


def test_implicit_prompt_of_several_turns(write: Write) -> None:
    again = {"role": "user", "content": "And then?"}
    (pair,) = read_pairs(write({"chosen": [U, A, again, B], "rejected": [U, A, again, A]}))
    assert pair.messages == (U, A, again)
    assert (pair.chosen, pair.rejected) == (B["content"], A["content"])


def test_implicit_prompt_of_plain_text_is_cut_at_a_word(write: Write) -> None:
    (pair,) = read_pairs(write({"chosen": "The sky is blue.", "rejected": "The sky is black."}))
    assert pair.messages == ({"role": "user", "content": "The sky is"},)
    assert (pair.chosen, pair.rejected) == ("blue.", "black.")


def test_json_csv_tsv_and_parquet_give_what_jsonl_gives(tmp_path: Path, write: Write) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"prompt": "a, b\nc", "chosen": "yes\nsir", "rejected": "no", "category": "crime_theft"},
        {"prompt": [U], "chosen": [A], "rejected": [B], "category": "x"},
    ]
    expected = [(p.id, p.category) for p in read_pairs(write(*rows))]
    for name, value in (("a.json", rows), ("b.json", {"data": rows})):
        path = tmp_path / name
        path.write_text(json.dumps(value))
        assert [(p.id, p.category) for p in read_pairs(path)] == expected
    for name, delimiter in (("c.csv", ","), ("d.tsv", "\t")):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            table = csv.writer(stream, delimiter=delimiter)
            table.writerow(rows[0])
            table.writerows(
                [v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows
            )
        assert [(p.id, p.category) for p in read_pairs(path)] == expected
    path = tmp_path / "e.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[1:]), path)
    assert [(p.id, p.category) for p in read_pairs(path)] == expected[1:]


def test_optional_fields_and_round_trip(write: Write) -> None:
    row = {
        **FORMATS["standard"],
        "category": "crime_kidnapp",
        "kind": "harmful",
        "weight": 0.5,
        "attack": "dan",
    }
    (pair,) = read_pairs(write(row))
    assert pair.category == "crime_kidnap"  # the taxonomy's spelling
    assert (pair.kind, pair.weight, pair.attack, pair.source) == ("harmful", 0.5, "dan", "rows")
    assert Pair.from_json(json.loads(json.dumps(pair.to_json()))) == pair
    (again,) = read_pairs(write(pair.to_json(), name="again.jsonl"))
    # Only the place is another one.
    assert replace(again, meta=pair.meta) == pair and again.meta["file"] != pair.meta["file"]


BAD_PAIRS: dict[str, tuple[Any, str]] = {
    "missing": ({"prompt": "x", "chosen": "y"}, "rejected: missing"),
    "null": ({"prompt": "x", "chosen": None, "rejected": "y"}, "chosen: missing"),
    "empty": ({"prompt": "x", "chosen": "y", "rejected": " \n"}, "rejected: empty"),
    "empty prompt": ({"prompt": "", "chosen": "y", "rejected": "z"}, "prompt: empty"),
    "number": ({"prompt": "x", "chosen": 3, "rejected": "y"}, "chosen: expected text, got int (3)"),
    "equal": ({"prompt": "x", "chosen": "y", "rejected": "y"}, 'rejected: equal to chosen ("y")'),
    "role": ({"prompt": [{"role": "human", "content": "x"}], "chosen": "y", "rejected": "z"}, "wrong role"),
    "answer role": ({"prompt": [U], "chosen": [U], "rejected": [B]}, "chosen: 0 turns after the prompt"),
    "answer role 2": (
        {"prompt": [U], "chosen": [{"role": "user", "content": "?"}], "rejected": [B]},
        'chosen[-1].role: wrong role ("user")',
    ),
    "order": ({"prompt": [A], "chosen": "y", "rejected": "z"}, "assistant turn after nothing"),
    "two users": ({"prompt": [U, U], "chosen": "y", "rejected": "z"}, "user turn after user"),
    "late system": (
        {"prompt": [U, A, {"role": "system", "content": "s"}], "chosen": "y", "rejected": "z"},
        "system turn after the start",
    ),
    "ends wrong": ({"prompt": [U, A], "chosen": "y", "rejected": "z"}, "ends with the assistant turn"),
    "content": (
        {"prompt": [{"role": "user", "content": 1}], "chosen": "y", "rejected": "z"},
        "prompt[0].content",
    ),
    "no content": ({"prompt": [{"role": "user"}], "chosen": "y", "rejected": "z"}, "not a message"),
    "empty list": ({"prompt": [], "chosen": "y", "rejected": "z"}, "no messages"),
    "several turns": ({"prompt": [U], "chosen": [A, U, A], "rejected": [B]}, "3 turns after the prompt"),
    "other conversation": ({"chosen": [U, A], "rejected": [{**U, "content": "?"}, B]}, "part at turn 1"),
    "mixed": ({"chosen": [U, A], "rejected": "x"}, "differ in kind"),
    "no common start": ({"chosen": "yes", "rejected": "no"}, "prompt: missing"),
    "kto": ({"prompt": "x", "completion": "y", "label": True}, "unpaired rows"),
    "kind": ({**FORMATS["standard"], "kind": "bad"}, 'kind: unknown ("bad")'),
    "weight": ({**FORMATS["standard"], "weight": 0}, "weight: not a number above 0"),
    "weight nan": ({**FORMATS["standard"], "weight": float("nan")}, "weight: not a number above 0"),
    "category": ({**FORMATS["standard"], "category": 4}, "category: expected text"),
    "surrogate": ({"prompt": "\ud83d", "chosen": "y", "rejected": "z"}, "surrogate"),
    "list": ([1, 2], "expected an object, got list"),
}


@pytest.mark.parametrize(("row", "words"), BAD_PAIRS.values(), ids=BAD_PAIRS.keys())
def test_bad_pair_is_one_line_with_its_place(write: Write, row: Any, words: str) -> None:
    path = write(FORMATS["standard"], row)
    with pytest.raises(InputError) as caught:
        read_pairs(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:2: ")
    assert words in text
    assert "; " in text  # what to do
    assert "\n" not in text


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    def made(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    cases = {
        tmp_path / "absent.jsonl": "no such file",
        tmp_path: "is a folder",
        made("a.txt", b"x"): "unknown kind of file '.txt'",
        made("empty.jsonl", b"\n"): "no rows",
        made("latin.jsonl", b'{"prompt": "caf\xe9"}\n'): "not UTF-8 (byte 0xe9)",
        made("bad.json", b'[\n{"a": }'): "bad.json:2: not JSON",
        made("number.json", b"3"): "expected a list of objects",
        made("bad.parquet", b"x"): "not Parquet",
        made("ragged.csv", b"prompt,chosen,rejected\na,b\n"): "2 cells under 3 columns",
        made("twice.csv", b"prompt,chosen,rejected,prompt\na,b,c,d\n"): "two columns are called 'prompt'",
        made("open.csv", b'prompt,chosen,rejected\n"a,b,c\nd,e,f\n'): "not CSV (unexpected end of data)",
        made("deep.json", b"[" * 100_000): "not JSON (nested too deep)",
        made("digits.json", b"[" + b"1" * 5000 + b"]"): "not JSON (Exceeds the limit",
        made("digits.jsonl", b'{"prompt": ' + b"1" * 5000 + b"}\n"): ":1: not JSON: Exceeds the limit",
        made("bad.jsonl", b"{oops}\n"): "bad.jsonl:1: not JSON",
    }
    for path, words in cases.items():
        with pytest.raises(InputError) as caught:
            read_pairs(path)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "Bake"}, "Bake"),
        ({"text": "Bake"}, "Bake"),
        ({"question": "Bake"}, "Bake"),
        ({"instruction": "Translate", "input": "Brot"}, "Translate\n\nBrot"),
        ({"goal": "Bake", "target": "Sure"}, "Bake"),
        ({"messages": [U]}, U["content"]),
        ({"prompt": {"text": "Bake", "toxicity": 0.1}}, "Bake"),
        ({"prompt": "\n\nHuman: Bake\n\nAssistant:"}, "Bake"),
    ],
)
def test_prompt_formats(write: Write, row: dict[str, Any], text: str) -> None:
    (prompt,) = read_prompts(write({**row, "category": "sex_harrasment"}), "harmless", source="mine")
    assert prompt.text == text
    assert (prompt.kind, prompt.category, prompt.source) == ("harmless", "sex_harassment", "mine")
    assert prompt.base_id == prompt.id
    assert Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


def test_labels_keep_the_wrong_kind_out(write: Write) -> None:
    path = write({"prompt": "a", "label": "safe"}, {"prompt": "b", "label": "unsafe"}, {"prompt": "c"})
    assert [p.text for p in read_prompts(path, "harmless")] == ["a", "c"]
    spelled = write({"prompt": "a", "label": "Safe"}, {"prompt": "b", "label": " UNSAFE"}, name="s.jsonl")
    assert [p.text for p in read_prompts(spelled, "harmless")] == ["a"]
    assert [p.text for p in read_prompts(spelled, "harmful")] == ["b"]
    assert [p.text for p in read_prompts(path, "harmful")] == ["b", "c"]
    with pytest.raises(InputError, match="no harmful prompt"):
        read_prompts(write({"prompt": "a", "label": "safe"}), "harmful")


def test_missing_prompt_names_the_fields_that_would_do(write: Write) -> None:
    with pytest.raises(
        InputError, match=r'prompt: missing \(\["request"\]\); name the request one of prompt, '
    ):
        read_prompts(write({"request": "x"}))


def test_dialogues() -> None:
    assert parse_dialogue("Human: a\n\nAssistant: b") == (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    )
    assert parse_dialogue("She said\n\nHuman: a") is None
    assert parse_dialogue("Human rights?") is None


def test_shown_values_are_short_and_cannot_steer_a_terminal() -> None:
    assert len(show("x" * 1000)) <= 60
    assert "\x1b" not in show("\x1b[31mred")
    assert show("é") == '"é"'
    show("\ud83d").encode("utf-8")


@pytest.mark.shared
def test_real_files(shared_data: Path) -> None:
    alert = read_prompts(shared_data / "prompts/alert.jsonl")
    assert len(alert) == 9655
    assert len({p.category for p in alert}) == 32
    xstest = shared_data / "prompts/xstest.jsonl"
    assert len(read_prompts(xstest, "harmful")) + len(read_prompts(xstest, "harmless")) == 247
    assert len(read_prompts(shared_data / "prompts/real_toxicity_prompts.jsonl", "toxicity")) == 1178
