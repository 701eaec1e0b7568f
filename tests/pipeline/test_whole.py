"""The main job as it is used: the default data, a system prompt, full fine-tuning, a run repeated.

The policies are tiny and random; all round them is what `safepref run` has.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import (
    SAYINGS,
    command,
    killed,
    on_command_line,
    save_tiny_model,
    start,
    tiny_recipe,
    write_inputs,
)
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer

from safepref.data.starter import load_starter
from safepref.errors import InputError
from safepref.judges.base import Exchange, Verdict
from safepref.judges.refusal import THRESHOLD, refusal_probability
from safepref.judges.registry import load_judge
from safepref.pipeline.manifest import recipe_of
from safepref.pipeline.run import run, train
from safepref.recipe import Recipe, parse_recipe
from safepref.store import cache_dir, read_json, read_jsonl, write_json
from safepref.taxonomy import load_taxonomy

pytestmark = pytest.mark.assets

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

SYSTEM = "You serve the harbour office, and you are brief."


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    save_tiny_model(folder / "speaker", SAYINGS)
    return folder


def default_data(folder: Path) -> Recipe:
    """The embedded data, judges and benchmarks, few of each, for a model that refuses some requests."""
    values = {
        "name": "whole",
        "methods": "dpo",
        "model": {"id": str(folder / "speaker"), "dtype": "float32"},
        "data": {"harmful": 12, "harmless": 8, "general": 6, "answer_tokens": 12},
        "training": {"epochs": 1, "lora_rank": 2, "max_length": 512},
        "generation": {"batch_size": 4},
        "evaluation": {"strengths": [1.0], "answer_tokens": 8, "continuation_tokens": 8, "limit": 2},
    }
    return parse_recipe(values, "whole recipe")


def small(folder: Path, **changes: Any) -> Recipe:
    """The tiny recipe with one method and one strength."""
    asked = tiny_recipe(folder).evaluation.model_dump(mode="json") | {"strengths": [0.5], "limit": 2}
    return tiny_recipe(folder, methods="dpo", evaluation=asked, **changes)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run over the default data."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    start(default_data(source), out)
    return out


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run by the command; its recipe lies beside the inputs."""
    (source / "small.yaml").write_text(small(source).to_yaml())
    out = tmp_path_factory.mktemp("runs") / "plain"
    code, printed, said = command("run", source / "small.yaml", "--out", out)
    assert code == 0, said
    assert "dpo" in printed
    return out


def test_the_default_data_are_the_models_own_answers_judged(source: Path, whole: Path) -> None:
    counts, pairs = read_json(whole / "data" / "counts.json"), read_jsonl(whole / "data" / "pairs.jsonl")
    assert counts["harmful"] == 12 and 6 < counts["harmless"] <= 8 and 0 < counts["general"] <= 6
    assert Counter(row["kind"] for row in pairs) == {k: counts[k] for k in ("harmful", "harmless")}
    assert counts["harmful_tried"] > 16, "no request was asked a second time"
    harmful = [row for row in pairs if row["kind"] == "harmful"]
    assert {row["category"] for row in pairs} <= set(load_taxonomy().micro_ids)
    assert 0 < sum(row["attack"] is not None for row in harmful) < len(harmful)
    bare = [row for row in harmful if row["attack"] is None]
    asked = [Exchange(row["messages"][-1]["content"], row["rejected"]) for row in bare]
    assert {judged.verdict for judged in load_judge("select").judge(asked)} == {Verdict.HARMFUL}
    said = tuple(text.strip() for text in SAYINGS)
    for row in pairs:
        own = row["rejected" if row["kind"] == "harmful" else "chosen"]
        assert any(text in own for text in said)
        assert not any(text in row["chosen" if row["kind"] == "harmful" else "rejected"] for text in said)
        # At most a third of the pairs, in weight.
        assert row["weight"] == (1.0 if row["kind"] == "harmful" else 12 / 2 / counts["harmless"])
        if row["kind"] == "harmless":
            assert refusal_probability(row["messages"][-1]["content"], own) < THRESHOLD
    examples = read_jsonl(whole / "data" / "examples.jsonl")
    assert len(examples) == counts["general"]
    general = {prompt.text for prompt in load_starter("general", "train")}
    assert {row["messages"][-1]["content"] for row in examples} <= general
    assert not any(row["severity"] == "error" for row in read_jsonl(whole / "data" / "findings.jsonl"))


def test_nothing_that_is_learned_from_is_asked(whole: Path) -> None:
    learned = read_jsonl(whole / "data" / "pairs.jsonl") + read_jsonl(whole / "data" / "examples.jsonl")
    texts = {row["messages"][-1]["content"] for row in learned}
    wrapped = {row["template"] for row in learned if row.get("attack")}
    asked = [row for path in (whole / "samples").glob("*.jsonl") for row in read_jsonl(path)]
    suites = {"safety", "over_refusal", "toxicity", "capability", "ordinary", "chat"}
    assert {row["suite"] for row in asked} == suites
    assert not texts & {row["messages"][-1]["content"] for row in asked if row.get("messages")}
    assert wrapped and not wrapped & {row["template"] for row in asked if row.get("attack")}


def test_the_default_evaluation_has_both_judges_and_all_benchmarks(whole: Path) -> None:
    results, cards = read_json(whole / "results.json"), read_json(whole / "judges.json")
    assert (cards["select"]["judge"], cards["report"]["judge"]) == ("select", "report")
    for scores in (results["base"], results["methods"]["dpo"]["scores"]):
        assert scores["safety"]["judge"] == "report" and scores["safety"]["second"]["judge"] == "select"
        assert set(scores["safety"]["asr"]) == {
            "suffix_injection",
            "prefix_injection",
            "token_manipulation",
            "jailbreak",
        }
        tasks = {"piqa", "commonsense_qa", "openbookqa", "mmlu", "arithmetic"}
        assert set(scores["capability"]["tasks"]) == tasks
        assert scores["toxicity"]["n"] == 2
    assert set(results["methods"]["dpo"]["choose"]) == {"1"}


@posix
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(["harmful-0-1"], id="once"),
        pytest.param(["harmful-0-1", "harmless", "general"], id="three times", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_while_it_asks_has_the_same_data_and_results(
    source: Path, whole: Path, tmp_path: Path, parts: list[str]
) -> None:
    recipe, out = default_data(source), tmp_path / "run"
    counts = read_json(whole / "data" / "counts.json")
    harmful, harmless = counts["harmful_tried"], counts["harmless_tried"]
    answers = {"harmful-0-1": 16, "harmless": harmful, "general": harmful + harmless}
    for part in parts:
        # The second of this part's chunks is under way.
        code = killed(start, recipe, out, stage="data", of="answers", after=answers[part] + 5)
        assert code == -signal.SIGKILL
        kept = (out / "data" / "answers" / f"{part}.jsonl").read_bytes()
        wanted = (whole / "data" / "answers" / f"{part}.jsonl").read_bytes()
        assert wanted.startswith(kept) and 0 < len(kept) < len(wanted), part
        assert not (out / "data" / "pairs.jsonl").exists()
    start(recipe, out)
    answered = [f"data/answers/{path.name}" for path in (whole / "data" / "answers").iterdir()]
    made = ("data/pairs.jsonl", "data/examples.jsonl", "data/counts.json", "results.json")
    for name in (*answered, *made):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    trained = Path("adapters") / "dpo" / "adapter_model.safetensors"
    assert (out / trained).read_bytes() == (whole / trained).read_bytes()


@contextmanager
def reading() -> Iterator[list[tuple[str, Tensor]]]:
    """Every row of token ids that the tiny model reads, and what for."""
    seen: list[tuple[str, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and module.embedding_dim == 32:
            how = "policy" if torch.is_grad_enabled() else "reference"
            how = "generation" if torch.is_inference_mode_enabled() else how
            seen.append((how, inputs[0].detach().clone()))

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def answer(model: Any, tokenizer: Any, messages: Sequence[dict[str, str]], new: int) -> str:
    """What transformers' own `generate` says to a conversation as the chat template has it, system first."""
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=new, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def conversations(samples: Path) -> list[dict[str, Any]]:
    """The rows of prompts that were answered in at most as many tokens as the recipe's cap."""
    return [row for row in read_jsonl(samples) if row["suite"] not in ("capability", "chat")]


@pytest.fixture
def without_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as it is, but for reference log-probs of earlier tests."""
    (tmp_path / "cache").mkdir()
    for place in cache_dir().iterdir():
        if place.name != "reference":
            (tmp_path / "cache" / place.name).symlink_to(place)
    monkeypatch.setenv("SAFEPREF_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("without_references")
def test_a_system_prompt_is_read_in_training_and_evaluation(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    section = {"id": str(source / "model"), "dtype": "float32", "system": SYSTEM}
    recipe, out = small(source, model=section), tmp_path / "run"
    with reading() as seen:
        train(recipe, out)
    tokenizer = AutoTokenizer.from_pretrained(source / "model")
    opened, turn = "<|im_start|>user\n", f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    log = read_jsonl(out / "logs" / "dpo" / "training_log.jsonl")
    for how, least in (("policy", len(log)), ("reference", 1)):
        # What the prompts of a batch have in common is read once for all of them.
        texts = [tokenizer.decode(ids.flatten()) for name, ids in seen if name == how]
        asked = sum(text.count(opened) for text in texts)
        assert asked >= least
        assert asked == sum(text.count(turn + opened) for text in texts)
    assert log[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-5)

    run(recipe, out)
    base = AutoModelForCausalLM.from_pretrained(source / "model", dtype=torch.float32)
    system = {"role": "system", "content": SYSTEM}
    rows = conversations(out / "samples" / "report.base.jsonl")
    assert {row["suite"] for row in rows} == {"safety", "over_refusal", "toxicity", "ordinary"}
    for row in rows:
        messages = row["messages"]
        if messages[0]["role"] == "system":
            assert messages[0]["content"].startswith(f"{SYSTEM}\n\n")
        else:
            messages = [system, *messages]
        assert row["response"] == answer(base, tokenizer, messages, 8)
    for example in read_jsonl(out / "data" / "examples.jsonl"):
        wanted = answer(base, tokenizer, [system, *example["messages"]], recipe.data.answer_tokens)
        assert example["completion"] == wanted
    without = conversations(plain / "samples" / "report.base.jsonl")
    said = [{row["id"]: row["response"] for row in side} for side in (rows, without)]
    assert said[0].keys() == said[1].keys()
    assert all(said[0][key] != said[1][key] for key in said[0])
    assert read_json(out / "manifest.json")["recipe"]["model"]["system"] == SYSTEM
    assert (out / "results.json").read_bytes() != (plain / "results.json").read_bytes()


def fully(folder: Path) -> Recipe:
    """The small recipe with all weights trained, far enough to be seen."""
    settings = tiny_recipe(folder).training.model_dump(mode="json")
    return small(folder, training={**settings, "full": True, "learning_rate": 1e-3})


@pytest.fixture(scope="module")
def full(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run that trains all weights."""
    out = tmp_path_factory.mktemp("runs") / "full"
    start(fully(source), out)
    return out


def test_a_fully_trained_model_is_a_folder_that_transformers_loads_and_was_evaluated(
    source: Path, full: Path
) -> None:
    folder = full / "models" / "dpo"
    assert not (full / "adapters").exists()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    trained = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(source / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours, theirs = dict(trained.named_parameters()), dict(base.named_parameters())
    assert all(not torch.equal(ours[name], theirs[name]) for name in theirs)
    results = read_json(full / "results.json")["methods"]["dpo"]
    assert results["training"]["full"] is True
    assert set(results["choose"]) == {"0.5"}
    assert_answers(full / "samples" / "report.dpo.jsonl", trained, tokenizer)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            weight.lerp_(theirs[name], 0.5)
    assert_answers(full / "samples" / "choose.dpo@0.5.jsonl", trained, tokenizer)
    answers = [
        {row["id"]: row["response"] for row in conversations(full / "samples" / f"report.{point}.jsonl")}
        for point in ("base", "dpo")
    ]
    assert answers[0].keys() == answers[1].keys()
    assert answers[0] != answers[1]


def assert_answers(samples: Path, model: Any, tokenizer: Any) -> None:
    """The samples are what transformers itself makes the model say."""
    rows = conversations(samples)
    assert rows
    for row in rows:
        assert row["response"] == answer(model, tokenizer, row["messages"], 8), row["id"]


@posix
def test_full_training_that_was_killed_ends_with_the_same_weights(
    source: Path, full: Path, tmp_path: Path
) -> None:
    recipe, out = fully(source), tmp_path / "run"
    assert killed(start, recipe, out, stage="train:dpo", of="dpo", after=2) == -signal.SIGKILL
    assert list((out / "checkpoints" / "dpo").glob("checkpoint-*"))
    assert not (out / "models").exists()
    start(recipe, out)
    for name in ("models/dpo/model.safetensors", "logs/dpo/training_log.jsonl", "results.json"):
        assert (out / name).read_bytes() == (full / name).read_bytes(), name
    assert not (out / "checkpoints" / "dpo").exists()
    assert not list(out.rglob("*.part"))


def test_a_run_is_repeated_from_its_manifest(plain: Path, tmp_path: Path) -> None:
    code, _, said = command("run", "--from", plain / "manifest.json", "--out", tmp_path / "again")
    assert code == 0, said
    again = tmp_path / "again"
    for name in ("results.json", "recipe.yaml", "adapters/dpo/adapter_model.safetensors", "data/pairs.jsonl"):
        assert (again / name).read_bytes() == (plain / name).read_bytes(), name
    manifests = [read_json(folder / "manifest.json") for folder in (again, plain)]
    for key in ("recipe", "seed", "hashes", "plan"):
        assert manifests[0][key] == manifests[1][key]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "{plain}/manifest.json", "--methods", "nca"], "--from repeats a run as it was"),
        (["--from", "{plain}/manifest.json", "--set", "seed=1"], "--from repeats a run as it was"),
        (["--from", "{plain}/results.json"], "results.json: not the manifest of a run"),
        (["--from", "{plain}/recipe.yaml"], "not JSON"),
        (["{source}/small.yaml", "--set", "seed=1", "--out", "{plain}"], "seed: 0 there, 1 now"),
    ],
)
def test_what_is_no_repetition_is_refused_in_one_line(
    source: Path,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (plain / "manifest.json").read_bytes()
    code, printed, said = command("run", *(text.format(plain=plain, source=source) for text in arguments))
    assert (code, printed) == (2, "")
    line = said.splitlines()[-1]
    assert line.startswith("safepref: ") and expected in line
    assert "Traceback" not in said
    assert (plain / "manifest.json").read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_run_on_files_that_changed_since_is_no_repetition(plain: Path, tmp_path: Path) -> None:
    manifest = read_json(plain / "manifest.json")
    file = next(iter(manifest["hashes"]["inputs"]))
    for name, digest, expected in (
        (file, "0" * 64, f"{file} has changed since that run"),
        ("gone.jsonl", "0" * 64, "gone.jsonl is not there"),
    ):
        write_json(tmp_path / "manifest.json", {**manifest, "hashes": {"inputs": {name: digest}}})
        with pytest.raises(InputError, match=re.escape(expected)):
            recipe_of(tmp_path / "manifest.json")


@posix
def test_ctrl_c_in_training_ends_with_3_and_the_same_command_continues(
    source: Path, plain: Path, tmp_path: Path
) -> None:
    line = ("run", source / "small.yaml", "--out", tmp_path / "run")
    code = killed(on_command_line, *line, stage="train:dpo", of="dpo", after=1, number=signal.SIGINT)
    assert code == 3
    stages = {row["name"]: row["status"] for row in read_json(tmp_path / "run" / "manifest.json")["stages"]}
    assert stages["train:dpo"] == "interrupted"
    code, _, said = command(*line)
    assert code == 0, said
    assert (tmp_path / "run" / "results.json").read_bytes() == (plain / "results.json").read_bytes()


def test_report_writes_the_page_anew(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, printed, said = command("report", folder)
    assert (code, printed, said) == (0, f"{folder / 'report.html'}\n", "")
    assert (folder / "report.html").read_bytes() == page
    results = (folder / "results.json").read_text()
    assert str(plain.parent) not in results
    (folder / "results.json").write_text(results.replace('"why": "', '"why": "Read anew: '))
    assert command("report", folder)[0] == 0
    assert "Read anew: " in (folder / "report.html").read_text()
    assert "Read anew: " not in page.decode()
