"""safepref: safety alignment of language models by preference optimization (arXiv 2409.07772).

`run`, `train`, `evaluate`, `load_recipe` and `METHODS` are the commands' Python side. They are loaded when
first used, so that `import safepref` is light and changes nothing in the process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from safepref.evaluation import evaluate
    from safepref.methods import METHODS
    from safepref.pipeline.run import run, train
    from safepref.recipe import Recipe, load_recipe

__all__ = ["METHODS", "Recipe", "__version__", "evaluate", "load_recipe", "run", "train"]

_HOMES = {
    "METHODS": "safepref.methods",
    "Recipe": "safepref.recipe",
    "evaluate": "safepref.evaluation",
    "load_recipe": "safepref.recipe",
    "run": "safepref.pipeline.run",
    "train": "safepref.pipeline.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'safepref' has no attribute {name!r}")
