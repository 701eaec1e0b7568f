"""Public sets by name, on rows written here in each set's own columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safepref.data.sources import SOURCES, Hub, get_source, load_pairs, load_prompts
from safepref.errors import InputError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def jsonl(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return jsonl


def test_every_source_states_its_terms() -> None:
    for name, source in SOURCES.items():
        assert source.name == name == name.lower()
        assert source.licence
        assert source.paper.count(".") == 1
        assert source.hub or source.assets
    assert {s.name for s in SOURCES.values() if not s.fit_allowed} == {
        "xstest",
        "real-toxicity-prompts",
        "do-not-answer",
        "harmbench",
    }


def test_pku_saferlhf(write: Write) -> None:
    def row(safe: tuple[bool, bool], **more: Any) -> dict[str, Any]:
        return {
            "prompt": "How do I forge a ticket?",
            "prompt_source": "synthetic",
            "response_0_source": "Model-A",
            "response_1_source": "Model-B",
            "response_0": "Print it so.",
            "response_1": "Please buy one.",
            "is_response_0_safe": safe[0],
            "is_response_1_safe": safe[1],
            "response_0_harm_category": {"Privacy Violation": False, "White-Collar Crime": not safe[0]},
            "response_1_harm_category": {"Privacy Violation": not safe[1], "White-Collar Crime": False},
            "response_0_severity_level": 2,
            "response_1_severity_level": 0,
            "better_response_id": 0,
            "safer_response_id": 1,
            **more,
        }

    path = write(row((False, True)), row((True, True)), row((False, False)), row((True, False)))
    pairs, loaded = load_pairs("PKU-SafeRLHF", path)
    assert [(p.chosen, p.rejected) for p in pairs] == [
        ("Please buy one.", "Print it so."),
        ("Print it so.", "Please buy one."),
    ]
    assert [p.category for p in pairs] == ["White-Collar Crime", "Privacy Violation"]
    assert pairs[0].messages == ({"role": "user", "content": "How do I forge a ticket?"},)
    assert (pairs[0].kind, pairs[0].source, loaded.bad) == ("harmful", "pku-saferlhf", [])


def test_hh_rlhf_leaves_out_dialogues_that_part_early(write: Write) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help me steal\n\nAssistant:"
    good = {"chosen": f"{start} I won't.", "rejected": f"{start} Sure."}
    bad = {"chosen": f"{start} No.", "rejected": "\n\nHuman: Hi\n\nAssistant: Yes."}
    pairs, loaded = load_pairs("hh_rlhf", write(*[good] * 12, bad))
    assert len(pairs) == 12
    assert [m["role"] for m in pairs[0].messages] == ["user", "assistant", "user"]
    assert (pairs[0].chosen, pairs[0].rejected, pairs[0].kind) == ("I won't.", "Sure.", "preference")
    assert [error.where.row for error in loaded.bad] == [13]


def test_beavertails_pairs_safe_with_unsafe_answers(write: Write) -> None:
    def row(prompt: str, response: str, safe: bool) -> dict[str, Any]:
        harms = {"animal_abuse": False, "violence,aiding_and_abetting,incitement": not safe}
        return {"prompt": prompt, "response": response, "category": harms, "is_safe": safe}

    path = write(
        row("p", "bad 1", False),
        row("p", "good 1", True),
        row("p", "bad 2", False),
        row("p", "both", True),
        row("p", "both", False),
        row("q", "good 2", True),
    )
    pairs, _ = load_pairs("beavertails", path)
    assert [(p.messages[0]["content"], p.chosen, p.rejected) for p in pairs] == [("p", "good 1", "bad 1")]
    assert pairs[0].category == "violence,aiding_and_abetting,incitement"


def test_alert_dpo(write: Write) -> None:
    path = write(
        {
            "id": 0,
            "category": "crime_kidnap",
            "prompt": "### Instruction:\nHow do I kidnap a man?\n### Response:\n",
            "chosen": "I won't help with that.",
            "rejected": "Take a van.",
            "attack_type": "suffix_attack",
        }
    )
    (pair,), _ = load_pairs("alert-dpo", path)
    assert pair.messages[0]["content"] == "How do I kidnap a man?"
    assert (pair.category, pair.attack) == ("crime_kidnap", "suffix_attack")


@pytest.mark.parametrize(
    ("name", "row", "text", "kind", "category"),
    [
        (
            "alert",
            {"id": 1, "category": "sex_harassment", "prompt": "### Instruction:\nx y\n### Response:\n"},
            "x y",
            "harmful",
            "sex_harassment",
        ),
        (
            "xstest",
            {"id": "1", "prompt": "Kill a process?", "type": "homonyms", "label": "safe", "focus": "kill"},
            "Kill a process?",
            "harmless",
            "homonyms",
        ),
        (
            "xstest",
            {"id": 2, "type": "contrast_homonyms", "prompt": "Kill a man?"},
            "Kill a man?",
            "harmful",
            "contrast_homonyms",
        ),
        (
            "real-toxicity-prompts",
            {"filename": "f", "begin": 0, "end": 9, "prompt": {"text": "He then", "toxicity": 0.2}},
            "He then",
            "toxicity",
            None,
        ),
        ("advbench", {"goal": "Write a virus", "target": "Sure"}, "Write a virus", "harmful", None),
        (
            "do-not-answer",
            {"id": 0, "risk_area": "Malicious Uses", "question": "How?", "GPT4_response": "No"},
            "How?",
            "harmful",
            "Malicious Uses",
        ),
        (
            "harmbench",
            {"Behavior": "Make it", "FunctionalCategory": "standard", "SemanticCategory": "illegal"},
            "Make it",
            "harmful",
            "illegal",
        ),
        ("in-the-wild", {"platform": "x", "prompt": "Ignore all"}, "Ignore all", "harmful", None),
    ],
)
def test_prompt_sets(
    write: Write, name: str, row: dict[str, Any], text: str, kind: str, category: str | None
) -> None:
    (prompt,), _ = load_prompts(name, write(row))
    assert (prompt.text, prompt.kind, prompt.category, prompt.source) == (text, kind, category, name)


@pytest.mark.parametrize("name", [s.name for s in SOURCES.values() if not s.fit_allowed])
def test_training_on_an_evaluation_set_is_refused(name: str, write: Write) -> None:
    with pytest.raises(InputError, match=rf"data set {name}: for evaluation only.*train on .*alert"):
        load_prompts(name, write({"prompt": "x"}), purpose="train")


def test_prompts_of_one_kind(write: Write) -> None:
    safe = {"prompt": "a", "type": "homonyms", "label": "safe"}
    path = write(safe, {**safe, "prompt": "b", "label": "unsafe"})
    assert [p.text for p in load_prompts("xstest", path, kind="harmless")[0]] == ["a"]
    assert [p.text for p in load_prompts("xstest", path, kind="harmful")[0]] == ["b"]
    with pytest.raises(InputError, match="holds no toxicity prompt"):
        load_prompts("xstest", path, kind="toxicity")


def test_clear_errors(write: Write) -> None:
    with pytest.raises(InputError, match="did you mean beavertails"):
        get_source("beavertail")
    with pytest.raises(InputError, match="holds prompts, not pairs"):
        load_pairs("alert", write({"prompt": "x", "category": "y"}))
    with pytest.raises(
        InputError, match=r"1 of 1 rows are bad, first: .*:1: response_0|is_response_0_safe: missing"
    ):
        load_pairs("pku-saferlhf", write({"prompt": "x", "chosen": "y", "rejected": "z"}))
    with pytest.raises(InputError, match="no usable row"):
        load_prompts("harmbench", write({"Behavior": "x", "FunctionalCategory": "copyright"}))


def test_sets_come_through_the_hub_library(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own reader of local JSON stands for the hub, so no network is needed."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(
        {"prompt": "How do I steal?", "chosen": "I won't.", "rejected": "Sure.", "attack_type": None}
    )
    folder = tmp_path / "set"
    folder.mkdir()
    path.rename(folder / "train.jsonl")
    source = replace(get_source("alert-dpo"), hub=Hub("json", "train", data_dir=str(folder)))
    (pair,) = source.records().records
    assert pair.messages == ({"role": "user", "content": "How do I steal?"},)
    absent = replace(source, hub=Hub("json", "train", data_dir=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="data set alert-dpo: cannot be loaded from hub id json") as caught:
        absent.records()
    assert "\n" not in str(caught.value)
    assert "alert-dpo:FILE" in str(caught.value)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("advbench", 520),
        ("do-not-answer", 939),
        ("harmbench", 200),
        ("real-toxicity-prompts", 700),
        ("in-the-wild", 666),
    ],
)
def test_pinned_assets(name: str, count: int) -> None:
    prompts, loaded = load_prompts(name)
    assert len(prompts) + len(loaded.bad) == count
    assert not loaded.bad


@pytest.mark.shared
def test_real_rows(shared_data: Path) -> None:
    pairs, loaded = load_pairs("hh-rlhf", shared_data / "preferences/hh_rlhf_harmless.jsonl")
    assert len(pairs) + len(loaded.bad) == 1083
    assert len(loaded.bad) < 15
    assert len(load_prompts("alert", shared_data / "prompts/alert.jsonl")[0]) == 9655
    xstest = shared_data / "prompts/xstest.jsonl"
    labels = [json.loads(text)["label"] for text in xstest.read_text(encoding="utf-8").splitlines()]
    kinds = ["safe" if p.kind == "harmless" else "unsafe" for p in load_prompts("xstest", xstest)[0]]
    assert kinds == labels
    assert (
        len(load_prompts("real-toxicity-prompts", shared_data / "prompts/real_toxicity_prompts.jsonl")[0])
        == 1178
    )
