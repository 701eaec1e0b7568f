"""The documents are true: links lead somewhere, commands and flags exist, snippets import what there is."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safepref.cli import app
from safepref.methods import METHODS
from safepref.recipe import load_recipe
from test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
GROUPS = ("data", "judge")

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


def code(path: Path) -> list[str]:
    """Lines of code blocks that are no Python, and inline code."""
    text = path.read_text(encoding="utf-8")
    lines = [line for kind, block in _FENCE.findall(text) if kind != "python" for line in block.splitlines()]
    return lines + _INLINE.findall(_FENCE.sub("", text))


def commands() -> list[tuple[str, list[str]]]:
    """(document, words behind `safepref`) of every command that a document shows."""
    found = []
    for path in DOCUMENTS:
        for line in code(path):
            for part in re.split(r"&&|;", line):
                match = re.match(r"\s*(?:\.venv/bin/)?safepref\s+(\S.*)", part)
                if match:
                    found.append((path.name, shlex.split(match.group(1), comments=True)))
    return found


def snippets() -> list[tuple[str, str]]:
    """(document, source) of every Python snippet."""
    return [
        (path.name, block)
        for path in DOCUMENTS
        for kind, block in _FENCE.findall(path.read_text(encoding="utf-8"))
        if kind == "python"
    ]


@cache
def help_of(*command: str) -> str:
    """The help of a command; fails where there is no such command."""
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0, f"safepref {' '.join(command)}: {result.output}"
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_there_is_something_to_check() -> None:
    shown = {words[0] for _, words in commands()}
    assert {"run", "evaluate", "data", "judge", "methods", "assets"} <= shown
    assert snippets()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link) and not link.startswith("#"):
            assert (path.parent / link.partition("#")[0]).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize(("document", "words"), commands(), ids=lambda value: " ".join(value)[:60])
def test_commands_and_their_flags_exist(document: str, words: list[str]) -> None:
    depth = 2 if words[0] in GROUPS and len(words) > 1 else 1
    text = help_of() if words[0].startswith("-") else help_of(*words[:depth])
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{document}: {flag} of {words[:depth]}"
    for flag, place in (("--model", "models"), ("--adapter", "adapters")):
        for word in (after for before, after in pairwise(words) if before == flag and "runs/" in after):
            match = re.fullmatch(rf"runs/[\w-]+/{place}/(\w+)", word)
            assert match and match.group(1) in METHODS, f"{document}: {word} is nothing that a run writes"
    overrides = [after for word, after in pairwise(words) if word == "--set"]
    if not any("..." in override or override == "key=value" for override in overrides):
        load_recipe(None, overrides)


@pytest.mark.parametrize(("document", "source"), snippets(), ids=lambda value: str(value)[:20])
def test_snippets_compile_and_import_what_there_is(document: str, source: str) -> None:
    tree = ast.parse(source, document)
    imported: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            for alias in node.names:
                imported[alias.asname or alias.name] = getattr(module, alias.name)
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            known = node.id in imported or node.id in assigned or hasattr(builtins, node.id)
            assert known, f"{document}: {node.id} is never imported"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = imported.get(node.value.id)
            if getattr(module, "__name__", "").startswith("safepref"):
                assert hasattr(module, node.attr), f"{document}: {node.value.id}.{node.attr}"


def test_make_targets_that_are_named_have_rules() -> None:
    rules = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {
        word
        for path in DOCUMENTS
        for line in code(path)
        if (match := re.match(r"make((?:\s+[a-z][\w-]*)+)\s*(?:#|$)", line))
        for word in match.group(1).split()
    }
    assert {"setup", "demo", "test", "install-check"} <= shown
    assert shown <= rules, f"named without a rule: {shown - rules}"


def test_contributing_gives_the_order_of_rooms() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    listed = re.search(r"rooms in one order \(a test holds it\): (.*?)\. ", text)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed.group(1)) == ORDER
