"""The main job on a two-layer model: the contract's files, equal repeats, kills, a refused second recipe."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import torch
from inspect_ai.log import read_eval_log
from tiny_run import killed, start, tiny_recipe, write_inputs

from processes import apart
from safepref.errors import InputError, Interrupted, NegativeResult
from safepref.hardware import threads
from safepref.models import load_model
from safepref.pipeline import workers as workers_module
from safepref.pipeline.job import Job
from safepref.pipeline.manifest import Manifest
from safepref.pipeline.run import run, train
from safepref.pipeline.workers import sensible_workers
from safepref.recipe import JudgeSection, parse_recipe
from safepref.store import read_json, read_jsonl, write_json

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    start(tiny_recipe(source), out)
    return out


def test_the_run_folder_is_the_contracts(finished: Path) -> None:
    for name in ("recipe.yaml", "manifest.json", "results.json", "report.html"):
        assert (finished / name).is_file()
    for method in ("dpo", "kto"):
        assert (finished / "adapters" / method / "adapter_model.safetensors").is_file()
    rows = [row for path in (finished / "samples").glob("*.jsonl") for row in read_jsonl(path)]
    assert rows
    assert all("verdict" in row for row in rows if row["suite"] == "safety")
    manifest = read_json(finished / "manifest.json")
    assert manifest["stages"][0]["name"] == "assets"
    assert all(stage["status"] == "done" for stage in manifest["stages"])
    assert "seconds" not in json.dumps(read_json(finished / "results.json"))


def test_results_hold_the_contracts_keys(finished: Path) -> None:
    results = read_json(finished / "results.json")
    assert set(results) == {"schema", "model", "base", "methods", "recommended", "tradeoff", "contamination"}
    assert set(results["tradeoff"]) == {"front", "hypervolume", "reference", "base"}
    assert set(results["recommended"]) == {"method", "strength", "scores", "why"}
    for scores in (results["base"], *(row["scores"] for row in results["methods"].values())):
        safety = scores["safety"]
        wanted = {
            "global",
            "plain",
            "adversarial",
            "asr",
            "by_category",
            "interval",
            "corrected",
            "unscored",
            "n",
        }
        assert wanted <= set(safety)
        assert safety["global"] == pytest.approx((safety["plain"] + safety["adversarial"]) / 2)
        assert {"plain", "adversarial", "n", "intervals"} <= set(scores["toxicity"])
        assert {"rate", "interval", "n"} <= set(scores["over_refusal"])
        assert set(scores["capability"]["tasks"]) == {"task"}
    assert set(results["methods"]["dpo"]["choose"]) == {"0.5", "1"}


def test_every_evaluated_point_has_an_inspect_log(finished: Path) -> None:
    logs = [read_eval_log(str(path)) for path in (finished / "logs" / "inspect").glob("*.json")]
    points = {path.stem for path in (finished / "samples").glob("*.jsonl")}
    assert {log.eval.task for log in logs} == points
    assert len(logs) == len(points)
    results = read_json(finished / "results.json")
    (base,) = [log for log in logs if log.eval.task == "report.base"]
    assert base.samples is not None and base.results is not None
    assert len(base.samples) == len(read_jsonl(finished / "samples" / "report.base.jsonl"))
    safety = next(score for score in base.results.scores if score.name == "safety")
    assert safety.metrics["global"].value == results["base"]["safety"]["global"]
    assert base.eval.model == results["model"]


def test_what_is_learned_from_is_held_against_what_is_asked(finished: Path) -> None:
    found = read_json(finished / "results.json")["contamination"]
    uses = found["uses"]
    assert uses["training"]["checked"] > 0 and uses["training"]["exact"] == 0
    assert uses["judge refusal, fitting"]["checked"] > 100
    assert found["unknown"] == []
    rows = read_jsonl(finished / "data" / "contamination.jsonl")
    assert len(rows) == sum(use["exact"] + use["near"] for use in uses.values())
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert f"Contamination of {found['evaluated']} evaluated texts" in page


def test_files_that_changed_before_training_are_read_again_and_later_refused(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(source, folder)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    opposite = {"prompt": rows[0]["prompt"], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, opposite]))
    with pytest.raises(NegativeResult):
        train(tiny_recipe(folder), out)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(tiny_recipe(folder), out)
    made, before = (list(read_jsonl(run_ / "data" / "pairs.jsonl")) for run_ in (out, finished))
    # Only the folder of the user's file is another one.
    assert [{**pair, "meta": {}} for pair in made] == [{**pair, "meta": {}} for pair in before]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(InputError, match=r"pairs\.jsonl has changed since"):
        run(tiny_recipe(folder), out)


def test_a_base_that_was_scored_on_files_that_changed_is_scored_again(source: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(source, folder)
    sides = ("evaluate:report:base", "evaluate:choose:base")
    job = Job(tiny_recipe(folder), out)
    for name in ("assets", *sides):
        job.manifest.begin(name)
        job.manifest.end(name, "done")
    with (folder / "harmful.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "shred the ledger of office 99"}) + "\n")
    again = Job(tiny_recipe(folder), out)
    assert again.manifest.done("assets") and not any(map(again.manifest.done, sides))


def test_choose_and_report_share_no_prompt_and_no_row(finished: Path) -> None:
    sides: dict[str, set[str]] = {"choose": set(), "report": set()}
    for path in (finished / "samples").glob("*.jsonl"):
        for row in read_jsonl(path):
            if "prompt" in row:
                sides[row["split"]].add(json.dumps(row["prompt"]))
    assert sides["choose"]
    assert not sides["choose"] & sides["report"]


def test_another_recipe_on_the_folder_is_refused_and_the_key_named(source: Path, finished: Path) -> None:
    with pytest.raises(InputError, match="seed: 0 there, 1 now"):
        run(tiny_recipe(source, seed=1), finished)


def test_a_run_of_a_version_that_lacked_a_key_goes_on_with_its_default(source: Path, tmp_path: Path) -> None:
    Manifest(tmp_path, tiny_recipe(source))
    kept = read_json(tmp_path / "manifest.json")
    del kept["recipe"]["data"]["anchored"], kept["recipe"]["rl"]
    write_json(tmp_path / "manifest.json", kept)
    assert Manifest(tmp_path, tiny_recipe(source)).data["stages"] == []
    data = {**tiny_recipe(source).data.model_dump(mode="json"), "anchored": ["harmless"]}
    with pytest.raises(InputError, match=r"data\.anchored: \[\] there, \['harmless'\] now"):
        Manifest(tmp_path, tiny_recipe(source, data=data))


def test_methods_are_added_to_a_run_and_what_is_done_stands(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = {stage["name"]: stage["seconds"] for stage in read_json(out / "manifest.json")["stages"]}
    with pytest.raises(InputError, match="methods: 'dpo,kto' there, 'dpo' now"):
        run(tiny_recipe(source, methods="dpo"), out)
    run(tiny_recipe(source, methods="nca,dpo,kto"), out)
    old, new = (read_json(folder / "results.json") for folder in (finished, out))
    assert set(new["methods"]) == {"nca", "dpo", "kto"}
    assert new["base"] == old["base"]
    assert all(new["methods"][name] == old["methods"][name] for name in ("dpo", "kto"))
    manifest = read_json(out / "manifest.json")
    assert manifest["recipe"]["methods"] == "nca,dpo,kto"
    after = {stage["name"]: stage["seconds"] for stage in manifest["stages"]}
    assert all(after[name] == seconds for name, seconds in before.items() if name != "report")
    assert "NCA" in (out / "report.html").read_text()


def test_what_a_kill_left_half_written_goes_and_what_is_not_the_runs_stays(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    left = [out / "adapters" / ".kto.part" / "adapter_config.json", out / "data" / ".pairs.jsonl.x1.part"]
    left.append(left[0].with_name(".README.md.x2.part"))
    foreign = out / "notes" / ".mine.part"
    for path in (*left, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    run(tiny_recipe(source), out)
    assert not any(path.exists() for path in (*left, left[0].parent))
    assert foreign.read_text() == "half"


def test_a_model_that_changed_since_is_refused(source: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    manifest = read_json(out / "manifest.json")
    manifest["hashes"]["model"] = "0" * 64
    manifest["stages"] = [row for row in manifest["stages"] if row["name"] != "evaluate:report:kto"]
    write_json(out / "manifest.json", manifest)
    with pytest.raises(InputError, match="its weights or tokenizer have changed since"):
        run(tiny_recipe(source), out)


def test_another_tools_manifest_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "other"}')
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a run"):
        run(tiny_recipe(source), tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": {"prompts": "gone.jsonl"}}, r"data\.prompts: gone\.jsonl: no such file"),
        ({"data": {"pairs": "pku-saferlh"}}, r"data\.pairs: .*did you mean pku-saferlhf"),
        ({"data": {"pairs": "hh-rlhf:gone.jsonl"}}, r"data\.pairs: hh-rlhf:gone\.jsonl: no such file"),
        ({"data": {"attacks": ["jailbrake"]}}, r"data\.attacks: .*did you mean 'jailbreak'"),
        ({"evaluation": {"attacks": ["gcg"]}}, r"evaluation\.attacks: attack 'gcg' is not known"),
        (
            {"evaluation": {"capability": ["gone.jsonl"]}},
            r"evaluation\.capability: gone\.jsonl: no such file",
        ),
        ({"judges": {"select": "selekt"}}, r"judges\.select: .*did you mean select"),
        ({"model": {"device": "gpu"}}, r"model\.device: device 'gpu' cannot be used here"),
    ],
)
def test_a_name_that_stands_for_nothing_is_told_before_anything_is_done(
    tmp_path: Path, settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        run(parse_recipe(settings, "recipe"), tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


STAGES = (
    "assets",
    "data",
    "judges",
    "check",
    "train:dpo",
    "train:kto",
    "evaluate:report:base",
    "evaluate:report:dpo",
    "evaluate:choose:kto@1",
    "report",
)


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(("data", "evaluate:report:dpo", "train:kto"), id="three times"),
        *(pytest.param((stage,), id=stage, marks=pytest.mark.slow) for stage in STAGES),
    ],
)
def test_a_run_killed_in_a_stage_ends_with_the_same_results(
    source: Path, finished: Path, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    recipe, out = tiny_recipe(source), tmp_path / "run"
    for stage in stages:
        assert killed(start, recipe, out, stage=stage) == -signal.SIGKILL, stage
        status = {row["name"]: row["status"] for row in read_json(out / "manifest.json")["stages"]}
        assert status[stage] != "done"
        assert not (out / "report.html").exists()
    start(recipe, out)
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    for method in ("dpo", "kto"):
        name = Path("adapters") / method / "adapter_model.safetensors"
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert not list(out.rglob("*.part"))
    hashes = [read_json(folder / "manifest.json")["hashes"] for folder in (out, finished)]
    assert hashes[0]["model"] == hashes[1]["model"]


def test_workers_side_by_side_end_with_the_same_results(
    source: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    start(tiny_recipe(source), out, workers=2)
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    for method in ("dpo", "kto"):
        name = Path("adapters") / method / "adapter_model.safetensors"
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    manifests = [read_json(folder / "manifest.json") for folder in (out, finished)]
    assert {stage["status"] for stage in manifests[0]["stages"]} == {"done"}
    assert manifests[0]["hashes"]["model"] == manifests[1]["hashes"]["model"]
    printed = capfd.readouterr().err
    assert "kto: Train: KTO" in printed
    assert "dpo@0.5: judge keyword-refusal: " in printed
    assert not multiprocessing.active_children()


def test_workers_end_with_a_killed_run_and_a_run_with_a_killed_worker_and_both_go_on(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    recipe, out = tiny_recipe(source), tmp_path / "run"
    begun = apart(start, recipe, out, 2)
    wait_for_work(out)
    orphans = workers(begun)
    assert len(orphans) == 2
    begun.kill()
    begun.join()
    assert not psutil.wait_procs(orphans, timeout=60)[1]

    with ThreadPoolExecutor(1) as other:
        ended = other.submit(end_a_worker, out)
        with pytest.raises(Interrupted, match="its process ended with exit code -9"):
            start(recipe, out, workers=2)
        ended.result()
    assert "interrupted" in {stage["status"] for stage in read_json(out / "manifest.json")["stages"]}
    start(recipe, out)
    assert torch.get_num_threads() == 1
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    assert not list(out.rglob("*.part"))


def test_an_error_in_a_worker_is_the_runs_error(source: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(source)
    training = recipe.training.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(InputError, match=r"the loss is .* lower training\.learning_rate"):
        run(recipe.model_copy(update={"training": training}), tmp_path / "run", workers=2)
    plan = read_json(tmp_path / "run" / "manifest.json")["plan"]
    assert (plan["shares"], plan["threads"]) == (2, threads())


def test_workers_are_as_many_as_methods_cores_and_memory_allow(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(source)
    loaded = load_model(recipe.model.id, dtype="float32", device="cpu")
    monkeypatch.setattr(workers_module, "threads", lambda: 8)
    for gib, methods, expected in ((64, 12, 8), (64, 3, 3), (16, 12, 3), (2, 12, 1)):
        monkeypatch.setattr(workers_module, "memory_bytes", lambda device, gib=gib: gib * 2**30)
        assert sensible_workers(loaded, recipe, methods) == expected
    full = recipe.model_copy(update={"training": recipe.training.model_copy(update={"full": True})})
    guarded = recipe.model_copy(update={"judges": JudgeSection(report="llama-guard-3")})
    for one in (full, guarded):
        monkeypatch.setattr(workers_module, "memory_bytes", lambda device: 2**40)
        assert sensible_workers(loaded, one, 12) == 1


def workers(run_: BaseProcess) -> list[psutil.Process]:
    """The workers of a run that is a process of its own: a server's children, or its own."""
    kin = psutil.Process(run_.pid).children(recursive=True)
    return [one for one in kin if one.ppid() != run_.pid or "spawn_main" in " ".join(one.cmdline())]


def end_a_worker(out: Path) -> None:
    """Kill one of this process's workers when some work is under way."""
    wait_for_work(out)
    multiprocessing.active_children()[0].kill()


def written(out: Path) -> dict[Path, int]:
    """What workers have written of unfinished stages, and how much."""
    files = [*out.glob("work/samples/**/answers.jsonl"), *out.glob("logs/*/*.jsonl")]
    return {path: path.stat().st_size for path in files if path.exists()}


def wait_for_work(out: Path) -> None:
    """Until a stage of a worker has written something."""
    before = written(out)
    while written(out) == before:
        wait([child.sentinel for child in multiprocessing.active_children()], 0.05)
