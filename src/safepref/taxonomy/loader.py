"""Taxonomies from YAML, checked to the last key: every error is one line with file and line number."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import yaml

from safepref.errors import InputError
from safepref.taxonomy.types import MacroCategory, MicroCategory, Scheme, Taxonomy, fold, nearest

_LINE = "\0line"
"""Hidden key under which a mapping keeps its line; no YAML file can hold it, NUL is not allowed there."""

_SCHEMA = 1


class _Loader(yaml.SafeLoader):
    """SafeLoader that keeps line numbers and refuses a key given twice, which YAML would silently drop."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep=deep)
        mapping[_LINE] = node.start_mark.line + 1
        return mapping


class _Reader:
    """Typed access to parsed YAML; each refusal names file, line, field, value and mend."""

    def __init__(self, file: str) -> None:
        self.file = file

    def fail(self, line: int, field: str, problem: str) -> NoReturn:
        where = f"{self.file}:{line}" if line else self.file
        raise InputError(f"{where}: {field}: {problem}")

    def mapping(self, value: Any, line: int, field: str, keys: tuple[str, ...] | None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(line, field, f"must be a mapping, got {value!r}")
        for key in value:
            if key == _LINE:
                continue
            if not isinstance(key, str):
                self.fail(value[_LINE], field, f"key {key!r} must be text; put it in quotes")
            if keys is not None and key not in keys:
                self.fail(value[_LINE], field, f"unknown key {key!r}: {nearest(key, list(keys))}")
        return value

    def text(self, row: dict[str, Any], key: str, field: str) -> str:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            shown = "it is missing" if key not in row else f"got {value!r}"
            self.fail(row[_LINE], f"{field}{key}", f"must be a non-empty text, {shown}")
        return value.strip()

    def rows(self, row: dict[str, Any], key: str, field: str) -> list[Any]:
        value = row.get(key)
        if not isinstance(value, list) or not value:
            shown = "it is missing" if key not in row else f"got {value!r}"
            self.fail(row[_LINE], f"{field}{key}", f"must be a non-empty list, {shown}")
        return value

    def texts(self, row: dict[str, Any], key: str, field: str) -> tuple[str, ...]:
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.fail(row[_LINE], f"{field}{key}", f"must be a list of texts, got {value!r}")
        if len(set(value)) < len(value):
            self.fail(row[_LINE], f"{field}{key}", f"holds a text twice: {value!r}")
        return tuple(value)


def _parse(text: str, file: str) -> Any:
    try:
        # The loader is a SafeLoader: plain data only, no object construction.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise InputError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None


def _schemes(reader: _Reader, root: dict[str, Any]) -> tuple[Scheme, ...]:
    table = reader.mapping(root.get("schemes", {_LINE: root[_LINE]}), root[_LINE], "schemes", None)
    schemes = []
    for name in (key for key in table if key != _LINE):
        codes = reader.mapping(table[name], table[_LINE], f"schemes.{name}", None)
        names = [code for code in codes if code != _LINE]
        if not names:
            reader.fail(table[_LINE], f"schemes.{name}", "must hold at least one code")
        schemes.append(
            Scheme(name, tuple((code, reader.text(codes, code, f"schemes.{name}.")) for code in names))
        )
    return tuple(schemes)


def _maps(
    reader: _Reader, row: dict[str, Any], field: str, schemes: tuple[Scheme, ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    known = {scheme.name: scheme.code_names for scheme in schemes}
    if "maps" not in row:
        return ()
    maps = reader.mapping(row["maps"], row[_LINE], f"{field}maps", None)
    out = []
    for name in (key for key in maps if key != _LINE):
        if name not in known:
            hint = nearest(name, list(known)) if known else "declare it under `schemes`"
            reader.fail(maps[_LINE], f"{field}maps", f"unknown scheme {name!r}: {hint}")
        codes = reader.texts(maps, name, f"{field}maps.")
        for code in codes:
            if code not in known[name]:
                hint = nearest(code, list(known[name]))
                reader.fail(maps[_LINE], f"{field}maps.{name}", f"unknown code {code!r}: {hint}")
        out.append((name, codes))
    return tuple(out)


def _micro(
    reader: _Reader, value: Any, line: int, field: str, macro: str, schemes: tuple[Scheme, ...]
) -> MicroCategory:
    row = reader.mapping(value, line, field, ("id", "title", "description", "aliases", "maps"))
    inner = f"{field}."
    return MicroCategory(
        id=reader.text(row, "id", inner),
        title=reader.text(row, "title", inner),
        description=reader.text(row, "description", inner),
        macro=macro,
        aliases=reader.texts(row, "aliases", inner),
        maps=_maps(reader, row, inner, schemes),
    )


def _build(root: Any, file: str) -> Taxonomy:
    reader = _Reader(file)
    root = reader.mapping(root, 0, "taxonomy", ("schema", "name", "source", "schemes", "macros"))
    if root.get("schema") != _SCHEMA:
        reader.fail(root[_LINE], "schema", f"must be {_SCHEMA}, got {root.get('schema')!r}")
    name = reader.text(root, "name", "")
    source = reader.text(root, "source", "") if "source" in root else ""
    schemes = _schemes(reader, root)
    macros: list[MacroCategory] = []
    micros: list[MicroCategory] = []
    named: dict[str, str] = {}
    for i, item in enumerate(reader.rows(root, "macros", "")):
        field = f"macros[{i}]"
        row = reader.mapping(item, root[_LINE], field, ("id", "title", "description", "micros"))
        macro_id = reader.text(row, "id", f"{field}.")
        if any(macro.id == macro_id for macro in macros):
            reader.fail(row[_LINE], f"{field}.id", f"{macro_id!r} is used twice; ids must differ")
        title, description = (reader.text(row, key, f"{field}.") for key in ("title", "description"))
        inside: list[str] = []
        for j, inner in enumerate(reader.rows(row, "micros", f"{field}.")):
            here = f"{field}.micros[{j}]"
            micro = _micro(reader, inner, row[_LINE], here, macro_id, schemes)
            for spelling in (micro.id, *micro.aliases):
                holder = named.setdefault(fold(spelling), micro.id)
                if holder != micro.id or any(other.id == micro.id for other in micros):
                    problem = f"{spelling!r} already names {holder!r}; ids and aliases must differ"
                    reader.fail(inner[_LINE], f"{here}.id", problem)
            micros.append(micro)
            inside.append(micro.id)
        macros.append(MacroCategory(macro_id, title, description, tuple(inside)))
    return Taxonomy(name, source, tuple(macros), tuple(micros), schemes)


@lru_cache(maxsize=1)
def _shipped() -> Taxonomy:
    text = resources.files(__package__).joinpath("alert.yaml").read_text(encoding="utf-8")
    return _build(_parse(text, "alert.yaml"), "alert.yaml")


def load_taxonomy(path: str | Path | None = None) -> Taxonomy:
    """The shipped ALERT taxonomy (arXiv 2404.08676), or a user's own from a YAML file of the same layout.

    Args:
        path: YAML file; None for the shipped one. Required are `schema: 1`, `name` and `macros`, each macro
            with `id`, `title`, `description` and `micros`, each micro with `id`, `title` and `description`;
            `source`, `schemes`, `aliases` and `maps` may be left out.

    Raises:
        InputError: the file is missing, is not UTF-8 YAML, or breaks the layout; one line names file, line,
            field, value and mend.
    """
    if path is None:
        return _shipped()
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot read the taxonomy: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    return _build(_parse(text, str(file)), str(file))
