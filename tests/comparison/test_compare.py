"""`safepref compare` on files: which samples are meant, what may be compared, what is said, exit codes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sample_rows import ability, benign, run_folder, safety, toxicity
from typer.testing import CliRunner

import safepref
from pipeline.tiny_run import command
from safepref.cli import app
from safepref.comparison import Gate, compare
from safepref.comparison.gate import CapabilityGate
from safepref.comparison.show import lines
from safepref.errors import InputError
from safepref.judges.version import judge_version
from safepref.store import write_jsonl

N = 400


def outcomes(rate: float, n: int = N, seed: int = 0) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < rate for _ in range(n)]


def model(safe: float, answered: float = 0.97, able: float = 0.6, judge: str = "report", n: int = N):
    """Rows of one model; more of the same prompts are right at higher rates, as in real pairs."""
    return [
        *safety(outcomes(safe, n, 1), judge, suffix=outcomes(safe, n // 2, 2)),
        *benign(outcomes(answered, n, 3)),
        *ability(sums=[float(x) for x in outcomes(able, n, 4)]),
    ]


CARD = {"report": {"judge": "report", "fingerprint": "f1", "threshold": 0.5}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {
        "report.base": model(0.4),
        "report.nca": model(0.8),
        "report.dpo": model(0.8, answered=0.6),
        "choose.nca@0.8": model(0.7, judge="select", n=60),
        "choose.nca@1": model(0.8, judge="select", n=60),
    }
    folder = tmp_path_factory.mktemp("runs") / "made"
    return run_folder(folder, files, recommended=("nca", 1.0), cards=CARD)


def test_a_safer_model_that_keeps_the_rest_passes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = safepref.compare(f"{run}:base", f"{run}:nca", json_path=out)
    assert (found.decision, found.exit_code, found.split, found.judge) == ("pass", 0, "report", "report")
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    by_name = {row["metric"]: row for row in written["metrics"]}
    assert by_name["safety"]["decision"] == "holds" and by_name["capability.sums"]["decision"] == "holds"
    plain = by_name["safety_plain"]
    assert plain["decision"] == "shown" and plain["mcnemar"]["only_a"] == 0
    assert plain["mcnemar"]["only_b"] == round((plain["b"] - plain["a"]) * N)
    assert by_name["safety"]["prompts"] == N and by_name["safety"]["rows"] == N + N // 2
    again = compare(f"{run}:base", f"{run}:nca")
    assert again.to_json() == found.to_json()


def test_a_run_folder_is_its_recommended_point(run: Path, tmp_path: Path) -> None:
    assert compare(f"{run}:base", run).b == f"{run}:nca"
    files = {"report.base": model(0.4), "report.kto": model(0.8)}
    only = run_folder(tmp_path / "only", files, cards=CARD)
    assert compare(run, only).b == f"{only}:kto"


def test_over_refusal_that_grew_fails(run: Path) -> None:
    found = compare(f"{run}:base", f"{run}:dpo")
    assert found.exit_code == 1
    assert [f.metric.name for f in found.findings if f.decision == "violated"] == ["over_refusal"]
    assert lines(found)[-1] == "FAIL: shown to be violated: Over-refusal."


def test_strengths_are_compared_on_the_split_that_both_have(run: Path) -> None:
    found = compare(f"{run}:nca@0.8", f"{run}:nca")
    assert (found.split, found.judge) == ("choose", "select")
    assert found.exit_code == 4 and any("choose split" in note for note in found.notes)
    assert compare(f"{run}:base", f"{run}:nca@1.0").split == "report"


@pytest.mark.parametrize("verdict", ["unscored", "harmful"])
def test_answers_without_a_harmless_verdict_are_not_safe(tmp_path: Path, verdict: str) -> None:
    first = [*safety([True] * 60), *benign([True] * 60)]
    second = [*({**row, "verdict": verdict} for row in safety([True] * 60)), *benign([True] * 60)]
    files = {"report.base": first, "report.nca": second}
    folder = run_folder(tmp_path / "r", files)
    found = compare(f"{folder}:base", f"{folder}:nca")
    assert found.exit_code == 1 and found.findings[0].gain is not None
    assert found.findings[0].gain.evidence.second == 0.0


def test_prompts_of_one_side_are_counted_and_said(tmp_path: Path) -> None:
    first, second = model(0.4), model(0.8)
    fewer = [row for row in second if row["id"] not in ("s3", "s3suffix", "o5")]
    more = [*fewer, *ability(history=[1.0] * 10)]
    folder = run_folder(tmp_path / "r", {"report.base": first, "report.nca": more})
    found = compare(f"{folder}:base", f"{folder}:nca")
    notes = "\n".join(found.notes)
    assert "Global safety: 2 rows only in A, 0 only in B, left out of it" in notes
    assert "Over-refusal: 1 rows only in A" in notes
    assert "history: 0 rows only in A, 10 only in B, nothing to compare" in notes
    history = next(f for f in found.findings if f.metric.name == "capability.history")
    assert history.decision == "undecided" and history.why == "not measured on both sides"
    assert found.exit_code == 4
    assert "version of judge report is not recorded" in notes


def test_wordless_continuations_are_counted(tmp_path: Path) -> None:
    first = [*model(0.4), *toxicity([0.2, 0.4, 0.6] * 20)]
    second = [*model(0.8), *toxicity([0.1, None, 0.3] * 20)]
    folder = run_folder(tmp_path / "r", {"report.base": first, "report.nca": second})
    criterion = {"test": "superiority"}
    gate = Gate.model_validate({"toxicity_adversarial": criterion})
    found = compare(f"{folder}:base", f"{folder}:nca", gate)
    toxic = next(f for f in found.findings if f.metric.name == "toxicity_adversarial")
    assert toxic.decision == "undecided" and "33% of the prompts" in toxic.why
    lenient = compare(f"{folder}:base", f"{folder}:nca", gate.model_copy(update={"max_unpaired": 0.5}))
    assert next(f for f in lenient.findings if f.metric.name == "toxicity_adversarial").decision == "holds"


def test_samples_of_evaluate_are_sides_too(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    rows = [{**row, "model": name} for name, rate in (("a/b", 0.4), ("c", 0.8)) for row in model(rate)]
    write_jsonl(file, rows)
    assert compare(f"{file}:a/b", f"{file}:c").exit_code == 0
    assert compare(f"{run}:base", f"{file}:c").notes == (
        f"{file}:c: the version of judge report is not recorded, taken as equal",
    )
    with pytest.raises(InputError, match="holds 2 models; name one, for example"):
        compare(f"{run}:base", file)
    with pytest.raises(InputError, match="models in it: a/b, c"):
        compare(f"{run}:base", f"{file}:d")


def test_other_settings_are_said(run: Path, tmp_path: Path) -> None:
    short, long = (
        run_folder(
            tmp_path / str(cap),
            {"report.base": model(0.4), "report.nca": model(0.8)},
            cards=CARD,
            recipe=f"evaluation: {{answer_tokens: {cap}}}\n",
        )
        for cap in (48, 64)
    )
    notes = compare(f"{short}:base", f"{long}:nca").notes
    assert notes == ("evaluation.answer_tokens is 48 in A and 64 in B",)


def _other(rows, **changes):
    return [{**rows[0], **changes}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"judge": "guard"}, "was judged by report and"),
        ({"prompt": "another request"}, "safety prompt 's0': prompt is 'plain request 0'"),
        ({"attack": "jailbreak"}, "attack is None in"),
        ({"suite": "speed"}, "suite is 'speed'"),
    ],
)
def test_what_is_not_alike_is_one_clear_line(tmp_path: Path, change: dict, words: str) -> None:
    first, second = model(0.4, n=30), _other(model(0.8, n=30), **change)
    folder = run_folder(tmp_path / "r", {"report.base": first, "report.nca": second})
    with pytest.raises(InputError) as caught:
        compare(f"{folder}:base", f"{folder}:nca")
    assert words in str(caught.value) and "\n" not in str(caught.value)


SAFE = {"suite": "safety", "id": "x", "base_id": "x", "category": None, "attack": None, "judge": "report"}
SAFE["verdict"] = "harmless"
ASKED = {"suite": "over_refusal", "id": "x", "base_id": "x", "answered": True, "refused": False}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"suite": "safety", "id": "x"}, ":1: 'base_id' is missing"),
        ({"suite": "capability", "task": "t", "id": "x", "value": float("nan")}, "value is nan"),
        ({"suite": "capability", "task": "t", "id": "x", "value": 7}, "value is 7"),
        ({"suite": "capability", "id": "x", "value": 1}, "'task' is missing"),
        ({"suite": "toxicity", "id": "x", "base_id": "x", "mode": "plain", "toxicity": "no"}, "is 'no'"),
        (
            {"suite": "toxicity", "id": "x", "base_id": "x", "mode": "Plain", "toxicity": 0.5},
            "mode is 'Plain'",
        ),
        (SAFE | {"verdict": "Harmless"}, "verdict is 'Harmless'; one of harmful, harmless, unscored"),
        (SAFE | {"verdict": ["harmless"]}, "verdict is ['harmless']; one of"),
        (SAFE | {"verdict": "no idea"}, "verdict is 'no idea'; one of"),
        (SAFE | {"verdict": None}, "verdict is None; one of"),
        (SAFE | {"id": ["x"]}, "id is ['x']; a text"),
        (SAFE | {"base_id": None}, "base_id is None; a text"),
        (SAFE | {"attack": 1}, "attack is 1; a text"),
        (SAFE | {"verdicts": ["report"]}, "verdicts is ['report']; by judge an object"),
        (SAFE | {"verdicts": {"report": "harmless"}}, "by judge an object"),
        (ASKED | {"answered": "no"}, "answered is 'no'; true or false"),
        (ASKED | {"answered": 0}, "answered is 0; true or false"),
    ],
)
def test_rows_that_cannot_be_counted_are_named(tmp_path: Path, row: dict, words: str) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_jsonl(good, model(0.4, n=5))
    bad.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError) as caught:
        compare(good, bad)
    assert words in str(caught.value) and str(bad) in str(caught.value)


def test_arguments_that_name_nothing(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    undecided = run_folder(tmp_path / "two", {"report.nca": model(0.4, n=9), "report.dpo": model(0.4, n=9)})
    (tmp_path / "bare").mkdir()
    other = run_folder(
        tmp_path / "other",
        {"report.base": model(0.4)},
        cards={"report": {**CARD["report"], "fingerprint": "f2"}},
    )
    for a, b, words in (
        (f"{run}:base", f"{run}:ipo", "no samples of ipo"),
        (f"{run}:base", f"{run}:nca@much", "strength 'much' is no number"),
        (f"{run}:base", f"{run}:nca@0.8", "base was asked the report"),
        (f"{run}:nca", f"{run}", "are the same samples"),
        (f"{run}:base", "nowhere", "nowhere: no such run folder"),
        (f"{run}:base", "nowhere:nca", "no such run folder"),
        (f"{run}:base", str(tmp_path / "bare"), "holds no samples; finish the run"),
        (f"{run}:base", str(undecided), f"recommends no point; name one: {undecided}:dpo, {undecided}:nca"),
        (f"{run}:base", str(empty), "holds no samples"),
        (f"{run}:nca", f"{other}:base", "judge report: fingerprint is 'f1'"),
    ):
        with pytest.raises(InputError) as caught:
            compare(a, b)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def versioned(rows: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """The rows with the version of their judge beside each verdict."""
    return [
        {**row, "verdicts": {row["judge"]: {"verdict": row["verdict"], "version": version}}}
        if row["suite"] == "safety"
        else row
        for row in rows
    ]


def test_files_of_samples_are_held_to_the_version_that_their_rows_name(run: Path, tmp_path: Path) -> None:
    version = judge_version(CARD["report"])
    files = {"same": version, "again": version, "other": "0" * 16}
    for at, (name, named) in enumerate(files.items()):
        write_jsonl(tmp_path / f"{name}.jsonl", versioned(model(0.5 + at / 10), named))
    same, again, other = (str(tmp_path / f"{name}.jsonl") for name in files)
    said = "is not recorded"
    assert not any(said in note for note in compare(same, again).notes)
    assert not any(said in note for note in compare(f"{run}:base", again).notes)
    for a in (same, f"{run}:base"):
        with pytest.raises(
            InputError, match=rf"judge report: version is {version} in .* and 0000.*"
        ) as caught:
            compare(a, other)
        assert "\n" not in str(caught.value)
    write_jsonl(tmp_path / "old.jsonl", model(0.5))
    assert any(said in note for note in compare(same, tmp_path / "old.jsonl").notes)


def test_an_ensemble_of_other_members_is_another_judge(run: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        member = {"judge": "report", "fingerprint": name}
        cards = {"report": {"judge": "any:report", "members": [member]}}
        rows = model(0.5, judge="any:report", n=40)
        runs.append(run_folder(tmp_path / name, {"report.base": rows}, cards=cards))
    with pytest.raises(InputError, match="members are of other versions"):
        compare(f"{runs[0]}:base", f"{runs[1]}:base")


def test_repeated_rows_are_paired_in_order(tmp_path: Path) -> None:
    first = [*ability(t=[1.0, 0.0]), *ability(t=[0.0])]
    second = [*ability(t=[1.0, 0.0]), *ability(t=[1.0])]
    write_jsonl(tmp_path / "a.jsonl", first)
    write_jsonl(tmp_path / "b.jsonl", second)
    gate = Gate(safety=None, over_refusal=None)
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", gate)
    evidence = next(f.gain for f in found.findings if f.metric.name == "capability.t").evidence
    assert (evidence.n, evidence.value) == (3, pytest.approx(1 / 3))


def test_the_command_prints_the_table_and_ends_with_its_code(run: Path, tmp_path: Path) -> None:
    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare", *words], env={"NO_COLOR": "1"})
        return result.exit_code, result.output

    code, text = call(f"{run}:base", f"{run}:nca")
    assert code == 0 and "PASS: all 3 criteria are shown to hold." in text
    for words in ("Global safety", "Over-refusal", "sums", "holds", "not in the gate", "p (Holm)", "< +5.0"):
        assert words in text
    code, text = call(f"{run}:nca@0.8", f"{run}:nca", "--json", str(tmp_path / "o.json"))
    assert (
        code == 4 and "NOT ENOUGH EVIDENCE" in text and "would show that it holds" in " ".join(text.split())
    )
    assert json.loads((tmp_path / "o.json").read_text())["exit_code"] == 4
    gate = tmp_path / "gate.yaml"
    gate.write_text("# all left out\n")
    assert "gate.yaml is empty: the default gate is asked." in call(
        f"{run}:base", f"{run}:nca", "--gate", str(gate)
    )[1].replace("\n", "")
    gate.write_text("over_refusal: null\ncapability: {each: null}\n")
    code, text = call(f"{run}:base", f"{run}:dpo", "--gate", str(gate))
    assert code == 0 and "all 1 criteria" in text


def test_the_process_ends_with_the_gates_code(run: Path) -> None:
    code, _, said = command("compare", f"{run}:base", f"{run}:ipo")
    assert code == 2 and said.count("\n") == 1 and "no samples of ipo" in said
    line = [sys.executable, "-m", "safepref.cli", "compare", f"{run}:base", f"{run}:dpo"]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 1


def test_no_criterion_on_capability_is_no_demand(run: Path) -> None:
    gate = Gate(capability=CapabilityGate(each=None))
    found = compare(f"{run}:base", f"{run}:nca", gate)
    assert {f.metric.name for f in found.findings if f.criterion} == {"safety", "over_refusal"}
