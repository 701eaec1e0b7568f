"""The card's record: how the model was made, from which data under which licences, how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from safepref.data.sources import SOURCES
from safepref.data.sources.base import Source
from safepref.judges.card import table
from safepref.methods import METHODS
from safepref.progress import duration
from safepref.recipe import SHIPPED
from safepref.report.folder import RunFolder
from safepref.report.labels import at, method_label
from safepref.report.public import public_values
from safepref.report.sections import merge_text
from safepref.strength import Strength, strength_text
from safepref.tradeoff.base import Base

UNKNOWN = "not recorded"
PROMPTS = ("prompts", "harmless_prompts", "general_prompts")
"""Keys of a recipe's data section that name what is asked to make pairs and examples."""
TRAINED = (
    ("pairs", "preference pairs"),
    ("examples", "general examples that hold it in place"),
    ("epochs", "epochs"),
    ("steps", "optimizer steps"),
    ("batch_size", "pairs to a batch"),
    ("learning_rate", "learning rate"),
    ("beta", "beta"),
    ("weight", "weight of the preference loss"),
    ("chosen_nll", "NLL on chosen answers"),
    ("anchor", "weight of the anchor"),
)
MACHINE = (
    ("system", "System"),
    ("processor", "Processor"),
    ("threads", "Threads"),
    ("memory_gib", "Memory, GiB"),
    ("device", "Device"),
    ("accelerator", "Accelerator"),
)


def trained_sets(recipe: Mapping[str, Any]) -> list[Source]:
    """The named public sets whose rows a recipe trains on."""
    bare = [text.partition(":")[0].partition("@")[0] for text in _named(recipe, *PROMPTS, "pairs")]
    return [SOURCES[name] for name in dict.fromkeys(bare) if name in SOURCES]


def _named(recipe: Mapping[str, Any], *keys: str) -> list[str]:
    """The files and sets that keys of the data section name, each of which may hold one, several or none."""
    found: list[str] = []
    for key in keys:
        value = at(recipe, "data", key)
        found += [] if value is None else [value] if isinstance(value, str) else map(str, value)
    return found


def _ships(recipe: Mapping[str, Any]) -> bool:
    """Whether prompts of the shipped sets are trained on, which is so where a key names nothing."""
    return any(at(recipe, "data", key) is None or set(SHIPPED) & {*_named(recipe, key)} for key in PROMPTS)


def how_made(run: RunFolder, method: str) -> list[str]:
    """Training settings, versions, hardware and time."""
    found = at(run.results, "methods", method, "training") or {}
    row = METHODS.get(method)
    full = at(run.manifest, "recipe", "training", "full")
    how = "All weights were trained" if full else "A LoRA adapter was trained"
    paper = f" (arXiv {row.arxiv})" if row is not None and row.arxiv else ""
    by = f"{row.title if row is not None else method_label(method)}{paper}"
    if "merged" in found:
        how, by = "LoRA adapters were trained", f"the methods that it is merged of ({merge_text(found)})"
    said = (
        f"{how} by {by} with safepref "
        f"{run.manifest.get('safepref', UNKNOWN)}, seed {run.manifest.get('seed', UNKNOWN)}, begun "
        f"{run.date}. In pairs that safepref builds of a harmful request, a refusal is preferred to the "
        "model's own unsafe answer; of a request that only looks harmful, its own answer to a refusal."
    )
    machine, plan = run.manifest.get("hardware") or {}, run.manifest.get("plan") or {}
    rows = [[title, _plain(found.get(key))] for key, title in TRAINED if found.get(key) is not None]
    rows += [[title, str(machine[key])] for key, title in MACHINE if machine.get(key) is not None]
    rows += [["Dtype of training and evaluation", str(plan["dtype"])]] if plan.get("dtype") else []
    seconds = run.manifest.get("seconds")
    rows += [["Time of the whole run", duration(seconds)]] if seconds else []
    versions = ", ".join(f"{name} {value}" for name, value in (run.manifest.get("versions") or {}).items())
    rows.append(["Versions", versions or UNKNOWN])
    return ["## How it was made", said, "\n".join(table(["", ""], rows))]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def licences(run: RunFolder, base: Base) -> list[str]:
    """The licence of the base, and those of the named public sets."""
    known = f"{base.licence}, as that of its base `{base.id}`" if base.licence else "not known"
    more = "" if base.licence else f": see `{base.id}`, whose licence it inherits"
    lines = [f"- Weights: {known}{more}."]
    sets = run.manifest.get("sets")
    if sets is None:
        lines.append("- Licences of the data were not recorded.")
    else:
        lines += [f"- {line}" for line in sets.values()]
    if _ships(run.manifest.get("recipe") or {}):
        lines.append("- Requests of safepref's shipped sets: Apache-2.0. Answers: the base model's own.")
    if any("-NC" in source.licence for source in trained_sets(run.manifest.get("recipe") or {})):
        lines.append(
            "- A set that was trained on is not for commercial use; whether that reaches the weights is for "
            "you to judge."
        )
    return ["## Licences", "\n".join(lines)]


def reproduce(run: RunFolder, method: str, strength: Strength, *, merged: bool, dtype: str) -> list[str]:
    """The recipe and the commands; its files stand by name, with their hashes."""
    recipe = run.manifest.get("recipe")
    if not isinstance(recipe, Mapping):
        return ["## How to reproduce", "The recipe of the run was not recorded."]
    known = public_values(dict(recipe))
    if at(known, "model", "system"):
        known["model"]["system"] = "(not printed)"
    again = ["safepref", "export", "again", "--method", method, "--strength", strength_text(strength)]
    again += ["--merged", "--dtype", dtype] if merged else []
    commands = f"safepref run recipe.yaml --out again\n{shlex.join(again)}"
    parts = ["## How to reproduce", f"With this recipe as `recipe.yaml`:\n\n```bash\n{commands}\n```"]
    inputs = at(run.manifest, "hashes", "inputs") or {}
    if inputs:
        rows = [[str(public_values(name)), f"`{value}`"] for name, value in inputs.items()]
        parts += ["It reads these files:", "\n".join(table(["file", "SHA-256"], rows))]
    text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    parts.append(f"<details><summary>recipe.yaml</summary>\n\n```yaml\n{text}```\n\n</details>")
    return parts
