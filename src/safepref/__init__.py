"""safepref: safety alignment of language models by preference optimization (arXiv 2409.07772).

`run`, `train`, `evaluate` (which takes an `EvaluationRequest`), `export_model` (an `ExportRequest`),
`compare`, `load_recipe` and `METHODS` are the commands' Python side. They are loaded when first used, so that
`import safepref` is light and changes nothing in the process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from safepref.comparison import compare
    from safepref.methods import METHODS
    from safepref.pipeline.evaluate import EvaluationRequest
    from safepref.pipeline.evaluate import evaluate_models as evaluate
    from safepref.pipeline.export import ExportRequest, export_model
    from safepref.pipeline.run import run, train
    from safepref.pipeline.tune import tune
    from safepref.recipe import Recipe, load_recipe

__all__ = [
    "METHODS",
    "EvaluationRequest",
    "ExportRequest",
    "Recipe",
    "__version__",
    "compare",
    "evaluate",
    "export_model",
    "load_recipe",
    "run",
    "train",
    "tune",
]

_HOMES = {
    "METHODS": "safepref.methods:METHODS",
    "EvaluationRequest": "safepref.pipeline.evaluate:EvaluationRequest",
    "ExportRequest": "safepref.pipeline.export:ExportRequest",
    "Recipe": "safepref.recipe:Recipe",
    "compare": "safepref.comparison:compare",
    "evaluate": "safepref.pipeline.evaluate:evaluate_models",
    "export_model": "safepref.pipeline.export:export_model",
    "load_recipe": "safepref.recipe:load_recipe",
    "run": "safepref.pipeline.run:run",
    "train": "safepref.pipeline.run:train",
    "tune": "safepref.pipeline.tune:tune",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'safepref' has no attribute {name!r}")
