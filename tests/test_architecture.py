"""Rooms import only rooms above them, files stay short, and importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "safepref"

ORDER = [
    "errors",
    "strength",
    "statistics",
    "store",
    "progress",
    "recipe",
    "assets",
    "taxonomy",
    "attacks",
    "hardware",
    "models",
    "methods",
    "logprobs",
    "data",
    "generation",
    "judges",
    "pairs",
    "training",
    "evaluation",
    "tasks",
    "tradeoff",
    "report",
    "comparison",
    "pipeline",
    "commands",
    "cli",
]

SHARED_TYPES = {"data.records"}
"""Plain records that rooms above `data` may speak of."""


def room(module: str) -> str:
    """The room of a dotted module name below safepref."""
    return module.split(".")[0]


def imports(path: Path) -> list[str]:
    """Modules below safepref that a file imports anywhere, as names below the package."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("safepref"):
            below = node.module.removeprefix("safepref").lstrip(".")
            found += [below] if below else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [a.name.removeprefix("safepref.") for a in node.names if a.name.startswith("safepref.")]
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = room(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    if own == "__init__":
        return
    assert own in ORDER, f"{own} has no place in the order of rooms"
    for module in imports(path):
        if module in SHARED_TYPES or module.startswith("__"):
            continue
        assert ORDER.index(room(module)) <= ORDER.index(own), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


def test_importing_the_package_loads_neither_torch_nor_settings() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import safepref, safepref.recipe, safepref.errors;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; assert os.environ == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_unpickling_and_no_remote_code() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"pickle.load", "pickle.loads", "joblib.load", "torch.load"}, (
                    f"{path}: {name}"
                )
                for keyword in node.keywords:
                    if keyword.arg in ("trust_remote_code", "allow_pickle"):
                        assert ast.unparse(keyword.value) == "False", path
