"""Recipes read from YAML, `--set a.b=c` laid on top, and errors that name the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from safepref.errors import InputError
from safepref.recipe.whole import Recipe


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe (null: the embedded default) and lay `a.b=c` overrides on top.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest is named) or a bad value.
    """
    where = str(path) if path is not None else "embedded recipe"
    if path is None:
        text = files("safepref").joinpath("embedded.yaml").read_text(encoding="utf-8")
    else:
        text = read_text(Path(path), "recipe")
    values = parse_yaml(text, f"recipe {where}")
    for override in overrides:
        _lay(values, override)
    return parse_recipe(values, where)


def read_text(path: Path, what: str) -> str:
    """A text file; `what` says in errors what it is."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read ({error})") from error


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Keys and values of a YAML text, none where it holds nothing; `where` is named in errors."""
    try:
        values = yaml.load(text, _OnceLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML ({' '.join(str(error).split())})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected keys and values, got {type(values).__name__}")
    return values


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key stands once: of two the last would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # a list or a mapping, which the loader refuses itself
                continue
            if key.value in seen:
                place = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"line {place}: {key.value} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validate a recipe given as a dictionary; `where` is named in errors."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {explain(first, Recipe)}") from error


def _lay(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r}: write it as key=value, for example --set training.epochs=1")
    *parents, last = key.strip().split(".")
    place = values
    for part in parents:
        if (below := place.get(part)) is None:  # also a section that is written as null
            below = place[part] = {}
        if not isinstance(below, dict):
            raise InputError(f"--set {override!r}: {part} is a value, not a section")
        place = below
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: the value is not YAML") from error


def explain(problem: Any, root: type[BaseModel]) -> str:
    """One line for an error of pydantic; an unknown key names the nearest one of `root`'s."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        leaves = {full.split(".")[-1]: full for full in reversed(all_keys(root))}
        beside = {name: ".".join([*path[:-1], name]) for name in known_keys(path[:-1], root)}
        near = difflib.get_close_matches(path[-1], leaves | beside, n=1, cutoff=0.6) or (
            difflib.get_close_matches(path[-1], beside, n=1, cutoff=0.0)
        )
        hint = (leaves | beside)[near[0]] if near else ""
        return f"unknown key {key}" + (f"; did you mean {hint}?" if hint else "")
    text = problem["msg"].removeprefix("Value error, ")
    return f"{key} is {problem.get('input')!r}: {text[0].lower()}{text[1:]}"


def known_keys(section: Iterable[str] = (), root: type[BaseModel] | None = None) -> list[str]:
    """Keys of a section, named by its path; empty where there is no such section."""
    model: Any = root or Recipe
    for part in section:
        if get_origin(model) is dict:  # the part is a name that the user gave
            model = _section(get_args(model)[1])
            continue
        if get_origin(model) is tuple:  # the part is a number in a list
            model = get_args(model)[0]
            continue
        field = getattr(model, "model_fields", {}).get(part)
        model = _section(field.annotation) if field is not None else None
    return list(getattr(model, "model_fields", {}))


def _section(annotation: Any) -> Any:
    """The section that a field holds, also one that may be null; else the annotation itself."""
    kinds = [kind for kind in get_args(annotation) if hasattr(kind, "model_fields")]
    return kinds[0] if len(kinds) == 1 and type(None) in get_args(annotation) else annotation


def all_keys(root: type[BaseModel] | None = None) -> list[str]:
    """Every key of the recipe, or of another root, as a dotted path."""
    found: list[str] = []
    for name, field in (root or Recipe).model_fields.items():
        below = getattr(_section(field.annotation), "model_fields", None)
        found += [f"{name}.{key}" for key in below] if below else [name]
    return found
