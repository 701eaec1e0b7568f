"""`safepref export` on a made run: the folder, its card, and every way in which it can be refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from chat_server import closed_address
from pipeline.tiny_run import command, save_tiny_model
from report.run_folder import build_run
from safepref.store import read_json, write_json
from safepref.training.trainer import save_weights

MARK = "safepref_export.json"
SECRET = "hunter2"


def change(file: Path, **values: Any) -> None:
    write_json(file, read_json(file) | values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two methods over a tiny model in a folder, whose recipe is full of paths."""
    root: Path = tmp_path_factory.mktemp("a user's home")
    save_tiny_model(root / "tiny-chat")
    run = root / "run"
    build_run(run, ("nca", "dpo"), plain=16, strengths=(0.6, 0.8))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(root / "tiny-chat"),
        LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", init_lora_weights=False),
    )
    for method in ("nca", "dpo"):
        save_weights(model, run / "adapters" / method)
    change(run / "results.json", model=str(root / "tiny-chat"))
    recipe = read_json(run / "manifest.json")["recipe"] | {
        "model": {"id": str(root / "tiny-chat"), "system": f"The word is {SECRET}."},
        "data": {"prompts": "alert", "pairs": f"pku-saferlhf:{root}/my pairs.jsonl"},
        "judges": {"report": f"rubric:judge@http://me:{SECRET}@10.0.0.7:8000/v1"},
        "training": {"lora_rank": 2},
    }
    hashes = {"model": "ab" * 32, "inputs": {f"{root}/my pairs.jsonl": "cd" * 32}}
    sets = {"alert": "ALERT (arXiv 2404.08676): CC BY-NC-SA 4.0: no commercial use"}
    change(run / "manifest.json", recipe=recipe, hashes=hashes, sets=sets)
    judges = read_json(run / "judges.json")
    judges["report"]["server"] = "http://10.0.0.7:8000/v1"
    judges["report"]["model"] = f"{root}/guards/mine"
    write_json(run / "judges.json", judges)
    return run


def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def text_of(folder: Path) -> str:
    return "\n".join(file.read_text() for file in folder.iterdir() if file.suffix != ".safetensors")


def test_the_recommended_adapter_and_its_card(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, err = command("export", finished, "--out", out, "--license", "mit")
    assert (code, said) == (0, f"{out}\n"), err
    assert {file.name for file in out.iterdir()} == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", MARK)
    }
    mark = read_json(out / MARK)
    results = read_json(finished / "results.json")
    assert (mark["method"], mark["strength"], mark["split"]) == ("nca", 0.8, "report")
    assert mark["scores"] == results["recommended"]["scores"]

    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "peft")
    assert card.data.get("base_model") is None  # a folder's name would lead nowhere
    values = {found.metric_name: found.metric_value for found in card.data.eval_results}
    safety = mark["scores"]["safety"]
    assert values["global safety"] == pytest.approx(safety["global"], abs=1e-4)
    assert values["attack success rate, jailbreak"] == pytest.approx(safety["asr"]["jailbreak"], abs=1e-4)
    low, high = (100 * edge for edge in safety["interval"])
    assert f"{100 * safety['global']:.1f} % ({low:.1f} to {high:.1f} %)" in card.text
    base = results["base"]["safety"]["global"]
    assert f"{100 * base:.1f} %" in card.text
    for part in (
        "jailbreak",
        "Criminal planning",
        "piqa",
        "0.874 (0.820 to 0.915)",
        "CC BY-NC-SA 4.0",
        "points",
    ):
        assert part in card.text, part
    assert "not for commercial use" in card.text


def test_nothing_of_the_machine_is_in_it(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = command("export", finished, "--merged", "--out", out)
    assert code == 0, err
    text = text_of(out)
    for private in (str(finished.parent), str(tmp_path), "/tmp", SECRET, "10.0.0.7"):
        assert private not in text, private
    assert "my pairs.jsonl" in text and "tiny-chat" in text  # by name

    plain = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert plain.dtype == torch.float32
    assert plain.generate(**asked, max_new_tokens=3).shape[1] > asked["input_ids"].shape[1]


def test_a_point_by_hand_says_what_its_figures_are_of(finished: Path, tmp_path: Path) -> None:
    run = copy(finished, tmp_path)
    code, said, err = command("export", run, "--method", "dpo", "--strength", "0.6", "--base", "me/tiny")
    assert (code, said) == (0, f"{run}/export/dpo@0.6-adapter\n"), err
    out = run / "export" / "dpo@0.6-adapter"
    card = ModelCard.load(out / "README.md")
    assert "The figures are of the choose split" in card.text and not card.data.eval_results
    assert card.data.base_model == "me/tiny" and 'base = "me/tiny"' in card.text
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == "me/tiny"
    code, _, err = command("export", run, "--method", "dpo", "--strength", "0.3", "--out", out)
    assert code == 0, err  # in place of the export that was there
    assert "was not measured at this strength" in (out / "README.md").read_text()
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_what_is_null_is_said_not_to_be_measured(finished: Path, tmp_path: Path) -> None:
    run = copy(finished, tmp_path)
    results = read_json(run / "results.json")
    for scores in (results["base"], results["methods"]["nca"]["scores"]):
        scores["capability"] = scores["toxicity"] = None
        scores["safety"]["corrected"] = None
        scores["safety"]["corrected_why"] = "no set"
    write_json(run / "results.json", results)
    for file in ("manifest.json", "judges.json"):
        (run / file).unlink()
    shutil.rmtree(run / "samples")
    code, _, err = command("export", run, "--method", "nca", "--out", tmp_path / "out")
    assert code == 0, err
    text = (tmp_path / "out" / "README.md").read_text()
    rows = {line.split("|")[1].partition(" (")[0].strip(): line for line in text.splitlines() if "|" in line}
    assert rows["Capability"].count("not measured") == 2
    assert rows["Adversarial toxicity"].count("not measured") == 2
    assert rows["Corrected safety"].count("none (no set)") == 2
    assert "not recorded" in text and "its samples are not kept" in text


def test_nothing_recommended_is_a_negative_answer_that_names_what_there_is(
    finished: Path, tmp_path: Path
) -> None:
    run = copy(finished, tmp_path)
    change(run / "results.json", recommended={"method": None, "strength": None, "scores": None, "why": "so."})
    code, _, err = command("export", run, "--out", tmp_path / "out")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"safepref: {run} recommends nothing: so. By hand: --method dpo --strength S (measured: "
        "0.6, 0.8, 1); --method nca --strength S (measured: 0.6, 0.8, 1)"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "kto"], "--method kto: .* has none of that name; it has dpo, nca"),
        (["--method", "nca", "--strength", "1.5"], "--strength: strength .1.5. is no number in 0..1"),
        (["--method", "nca", "--strength", "0"], "--strength 0 is the base itself"),
        (["--method", "nca", "--strength", "much"], "--strength: strength 'much' is no number in 0..1"),
        (["--strength", "0.6"], "--strength 0.6 is of a method; name it with --method"),
        (["--private"], "--private is of an upload; give --push HUB_ID"),
        (["--push", "a/b/c"], "--push a/b/c: "),
    ],
)
def test_a_wrong_option_is_one_line(
    finished: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    code, _, err = command("export", finished, "--out", tmp_path / "out", *arguments)
    line = err.splitlines()[-1]
    assert code == 2
    assert re.match(f"safepref: {expected}", line)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_no_export_are_left_alone(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    code, _, err = command("export", finished, "--out", out)
    assert code == 2 and "is there and is no export of safepref" in err
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
    code, _, err = command("export", tmp_path / "mine")
    assert code == 2 and "no finished run (no results.json)" in err


def test_an_export_that_fails_leaves_the_earlier_one(finished: Path, tmp_path: Path) -> None:
    run, out = copy(finished, tmp_path), tmp_path / "out"
    assert command("export", run, "--out", out)[0] == 0
    before = text_of(out)
    config = run / "adapters" / "nca" / "adapter_config.json"
    config.write_text(json.dumps(read_json(config) | {"use_dora": True}))
    code, _, err = command("export", run, "--out", out)
    assert code == 2 and "use_dora" in err
    assert text_of(out) == before and sorted(file.name for file in tmp_path.iterdir()) == ["out", "run"]


def test_a_full_fine_tune_has_no_adapter(finished: Path, tmp_path: Path) -> None:
    run = copy(finished, tmp_path)
    shutil.rmtree(run / "adapters" / "nca")
    shutil.copytree(finished.parent / "tiny-chat", run / "models" / "nca")
    code, _, err = command("export", run, "--adapter", "--out", tmp_path / "out")
    assert code == 2 and "is a full fine-tune, which has no adapter" in err
    code, _, err = command("export", run, "--out", tmp_path / "out", "--dtype", "bfloat16")
    assert code == 0, err
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert read_json(tmp_path / "out" / MARK)["dtype"] == "bfloat16"


def test_without_a_hub_the_export_stays(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")
    monkeypatch.setattr(constants, "ENDPOINT", closed_address().removesuffix("/v1"))
    out = tmp_path / "out"
    code, _, err = command("export", finished, "--out", out, "--push", "me/safe-tiny")
    assert code == 2 and err.splitlines()[-1].startswith("safepref: --push me/safe-tiny: not uploaded to ")
    assert SECRET not in err and f"the export stays in {out}" in err
    assert '"me/safe-tiny"' in (out / "README.md").read_text()
