"""The recipe: strict keys, nearest names, overrides, and a round trip through YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from safepref.errors import InputError
from safepref.recipe import Recipe, all_keys, load_recipe

CONTRACT = [
    "model.id",
    "data.harmful",
    "data.harmless",
    "data.general",
    "data.prompts",
    "data.pairs",
    "training.epochs",
    "training.batch_size",
    "training.full",
    "evaluation.limit",
    "evaluation.prompts",
    "evaluation.benign",
    "evaluation.toxicity",
    "evaluation.capability",
    "seed",
]


def test_the_keys_that_scripts_set_are_there() -> None:
    assert set(CONTRACT) <= set(all_keys())


@pytest.mark.parametrize(
    "path", sorted({*Path("recipes").glob("*.yaml")} - {Path("recipes/gate.yaml")}), ids=lambda p: p.name
)
def test_every_recipe_in_the_repository_loads(path: Path) -> None:
    assert isinstance(load_recipe(path), Recipe)


def test_a_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = load_recipe(None, ["data.harmful=7", "methods=all", "evaluation.capability=[a.jsonl]"])
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe
    assert recipe.evaluation.capability == ("a.jsonl",)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epoch=3", "unknown key training.epoch; did you mean training.epochs?"),
        ("harmfull=3", "did you mean data.harmful?"),
        ("batch_size=4", "did you mean training.batch_size?"),
        ("data.harmful=-1", "data.harmful is -1: input should be greater than or equal to 0"),
        ("data.harmful=many", "data.harmful is 'many'"),
        ("evaluation.strengths=[2]", "evaluation.strengths.0 is 2"),
        ("model.dtype=float8", "model.dtype is 'float8'"),
        ("training.anchor=.inf", "training.anchor is inf: input should be a finite number"),
        (
            "tradeoff.merges=[{methods: [dpo, nca], name: ..}]",
            "tradeoff.merges.0.name is '..': string should match pattern",
        ),
        ("nonsense", "write it as key=value"),
        ("seed.x=1", "--set 'seed.x=1': seed is a value, not a section"),
        ("seed=[", "the value is not YAML"),
    ],
)
def test_bad_overrides_name_key_value_and_mend(tmp_path: Path, override: str, expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path, [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "\x00"])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(path)


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("seed: 1\ntraining:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(InputError, match="line 4: epochs stands twice") as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)


def test_the_embedded_recipe_is_the_demo() -> None:
    assert load_recipe("recipes/demo.yaml") == load_recipe(None)
