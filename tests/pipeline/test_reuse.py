"""What a run takes over from another: the base's answers, and nothing where they would be others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import command, save_tiny_model, tiny_recipe, write_inputs

from safepref.generation.local import LocalEngine
from safepref.pipeline.run import run
from safepref.store import read_json, write_text

pytestmark = pytest.mark.assets


def counting(patch: pytest.MonkeyPatch) -> list[str]:
    """The last turns of all conversations that an engine is asked to answer from now on."""
    asked: list[str] = []
    real = LocalEngine.generate

    def generate(self: LocalEngine, conversations: Any, *rest: Any) -> Any:
        asked.extend(turns[-1]["content"] for turns in conversations)
        return real(self, conversations, *rest)

    patch.setattr(LocalEngine, "generate", generate)
    return asked


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of the inputs, with a run in `first`, and how many conversations it answered."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        asked = counting(patch)
        run(tiny_recipe(folder, methods="dpo"), folder / "first")
    return folder, len(asked)


@pytest.fixture
def done(first: tuple[Path, int]) -> Path:
    return first[0]


def test_the_base_is_not_asked_again_and_the_results_are_equal(
    first: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, alone = first
    results = read_json(done / "first" / "results.json")
    generated = counting(monkeypatch)
    run(tiny_recipe(done, methods="dpo"), done / "second", reuse=[done / "first"])
    assert read_json(done / "second" / "results.json") == results
    kept = [*(done / "first" / "data" / "answers").glob("*.jsonl")]
    kept += [
        *(done / "first" / "work" / "samples").glob("*/base/.resume/answers.jsonl"),
        *(done / "first" / "work" / "base").glob("*/.resume/answers.jsonl"),
    ]
    assert alone - len(generated) == sum(len(path.read_bytes().splitlines()) for path in kept) > 20
    pairs = [(done / name / "data" / "pairs.jsonl").read_bytes() for name in ("first", "second")]
    assert pairs[0] == pairs[1]


def test_answers_of_another_length_are_made_anew(done: Path) -> None:
    data = tiny_recipe(done).data.model_dump(mode="json")
    recipe = tiny_recipe(done, methods="dpo", data={**data, "answer_tokens": data["answer_tokens"] + 1})
    run(recipe, done / "longer", reuse=[done / "first"])
    own = {path.name: path.read_bytes() for path in (done / "longer" / "data" / "answers").glob("*.jsonl")}
    assert own and all(
        content != (done / "first" / "data" / "answers" / name).read_bytes() for name, content in own.items()
    )


def test_a_base_under_another_system_prompt_is_asked_again(
    first: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, alone = first
    model = {"id": str(done / "model"), "dtype": "float32", "system": "Be brief."}
    generated = counting(monkeypatch)
    run(tiny_recipe(done, methods="dpo", model=model), done / "briefly", reuse=[done / "first"])
    assert len(generated) == alone
    assert read_json(done / "briefly" / "manifest.json")["reused"]


def test_no_run_and_another_model_are_refused(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = done / "recipe.yaml"
    write_text(recipe, tiny_recipe(done, methods="dpo").to_yaml())
    code, _, text = command("run", recipe, "--out", done / "x", "--reuse", done / "nowhere")
    assert code == 2 and f"--reuse {done / 'nowhere'}: no run's folder" in text
    other = done / "other-model"
    save_tiny_model(other, hidden_size=48)
    code, _, text = command("run", recipe, "--model", other, "--out", done / "y", "--reuse", done / "first")
    assert code == 2 and "its model has other weights or another dtype" in text
