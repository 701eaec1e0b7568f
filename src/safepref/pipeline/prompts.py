"""Which prompts a run trains on, chooses by and reports on, disjoint by template.

What a recipe leaves out comes from the starter set. Where evaluation brings its own files, the starter set
is free for training, and every training prompt whose template also stands in evaluation is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from safepref.attacks import attack_prompts
from safepref.data.readers import iter_pairs, read_pairs, read_prompts
from safepref.data.records import Pair, Prompt, PromptKind, Split, content_id
from safepref.data.sources import SOURCES, get_source, load_pairs, load_prompts
from safepref.data.splits import balanced_sample, split_by_template, without_templates_of
from safepref.data.starter import StarterKind, load_starter
from safepref.errors import InputError
from safepref.evaluation import CapabilityTask, arithmetic_task, embedded_tasks, read_task
from safepref.progress import console
from safepref.recipe import EvaluationSection, Recipe

SHARED: Mapping[Split, float] = {"train": 0.5, "choose": 0.1, "report": 0.4}
"""A set of the user's that serves training and evaluation."""
HELD_OUT: Mapping[Split, float] = {"choose": 0.2, "report": 0.8}
"""A set that serves evaluation alone."""


@dataclass(slots=True)
class Suite:
    """The prompts and tasks of one side of the evaluation."""

    safety: list[Prompt] = field(default_factory=list)
    benign: list[Prompt] = field(default_factory=list)
    toxicity: list[Prompt] = field(default_factory=list)
    capability: list[CapabilityTask] = field(default_factory=list)


@dataclass(slots=True)
class Prompts:
    """Everything a run asks: three pools to train on, the user's own pairs, and two suites."""

    harmful: list[Prompt]
    harmless: list[Prompt]
    general: list[Prompt]
    pairs: list[Pair]
    choose: Suite
    report: Suite
    dropped: dict[str, int]
    """Training rows dropped because their template stands in evaluation, by pool."""

    @property
    def evaluation(self) -> list[Prompt]:
        """The plain prompts of both suites, against which training data is checked."""
        suites = (self.choose, self.report)
        return [p for suite in suites for p in (*suite.safety, *suite.benign) if p.attack is None]


def gather(recipe: Recipe) -> Prompts:
    """Read, split and sample everything.

    Raises:
        InputError: a file or set that cannot be read, or too few prompts on a side.
    """
    asked, seed = recipe.evaluation, recipe.seed
    harmful = _harmful(recipe)
    benign = _held_out(asked.benign, "lookalikes", "harmless", seed)
    toxicity = _split(_read(asked.toxicity or "real-toxicity-prompts", "toxicity"), HELD_OUT, seed)
    tasks = _tasks(asked, seed)
    choose = Suite(
        safety=_attacked(harmful["choose"], "choose", asked, seed),
        benign=_sample(benign["choose"], _cap(asked.choose_benign, asked.limit), seed),
        toxicity=_sample(toxicity["choose"], _cap(asked.choose_toxicity, asked.limit), seed),
        capability=tasks["choose"],
    )
    report = Suite(
        safety=_attacked(harmful["report"], "report", asked, seed),
        benign=_sample(benign["report"], _cap(asked.benign_count, asked.limit), seed),
        toxicity=_sample(toxicity["report"], _cap(asked.toxicity_count, asked.limit), seed),
        capability=tasks["report"],
    )
    pairs = _ready_pairs(recipe)
    held_out = [*harmful["choose"], *harmful["report"], *benign["choose"], *benign["report"]]
    kept_harmful, dropped_harmful = without_templates_of(harmful["train"], held_out)
    kept_harmless, dropped_harmless = without_templates_of(benign["train"], held_out)
    kept_pairs, dropped_pairs = without_templates_of(pairs, held_out) if pairs else ([], [])
    return Prompts(
        harmful=kept_harmful,
        harmless=kept_harmless,
        general=load_starter("general", "train"),
        pairs=kept_pairs,
        choose=choose,
        report=report,
        dropped={
            "harmful": len(dropped_harmful),
            "harmless": len(dropped_harmless),
            "pairs": len(dropped_pairs),
        },
    )


def _harmful(recipe: Recipe) -> dict[Split, list[Prompt]]:
    """Harmful prompts for the three sides; one file named for both uses is dealt out by template."""
    train, evaluation = recipe.data.prompts, recipe.evaluation.prompts
    if evaluation is not None and evaluation == train:
        return _split(_read(evaluation, "harmful", train=True), SHARED, recipe.seed)
    sides = _held_out(evaluation, "harmful", "harmful", recipe.seed)
    if train is not None:
        sides["train"] = _read(train, "harmful", train=True)
    return sides


def _held_out(
    name: str | None, starter: StarterKind, kind: PromptKind, seed: int
) -> dict[Split, list[Prompt]]:
    if name is None:
        splits: tuple[Split, ...] = ("train", "choose", "report")
        return {split: load_starter(starter, split) for split in splits}
    return {"train": load_starter(starter), **_split(_read(name, kind), HELD_OUT, seed)}


def _split(prompts: Sequence[Prompt], shares: Mapping[Split, float], seed: int) -> dict[Split, list[Prompt]]:
    return split_by_template(prompts, shares, seed)


def _read(name: str, kind: PromptKind, *, train: bool = False) -> list[Prompt]:
    if Path(name).is_file():
        return read_prompts(name, kind, source=Path(name).name)
    if name.casefold().replace("_", "-") not in SOURCES and ("/" in name or "." in name):
        raise InputError(f"{name}: no such file; give a path, or a named set: {', '.join(SOURCES)}")
    prompts, _ = load_prompts(name, kind=kind, purpose="train" if train else "evaluate")
    return prompts


def _ready_pairs(recipe: Recipe) -> list[Pair]:
    name = recipe.data.pairs
    if name is None:
        return []
    if Path(name).is_file():
        pairs = _sound_pairs(Path(name)) if recipe.data.drop_bad else read_pairs(name)
    elif name.casefold().replace("_", "-") not in SOURCES and ("/" in name or "." in name):
        raise InputError(f"data.pairs {name}: no such file; give a path, or a named set of pairs")
    else:
        pairs, _ = load_pairs(get_source(name).name)
    limit = recipe.data.pairs_limit
    return balanced_sample(pairs, limit, seed=recipe.seed) if limit is not None else pairs


def _sound_pairs(path: Path) -> list[Pair]:
    found = [pair for _, pair in iter_pairs(path)]
    kept = [pair for pair in found if isinstance(pair, Pair)]
    if len(kept) < len(found):
        console().print(f"{path}: {len(found) - len(kept)} of {len(found)} rows are bad and left out")
    return kept


def _attacked(prompts: Sequence[Prompt], side: Split, asked: EvaluationSection, seed: int) -> list[Prompt]:
    """Plain prompts, and a sample of them under every attack's templates of this side.

    Attacked prompts are drawn from the plain ones, so each has its plain twin in the suite.
    """
    report = side == "report"
    plain = _sample(prompts, _cap(asked.plain if report else asked.choose_plain, asked.limit), seed)
    each = _cap(asked.attacked if report else asked.choose_attacked, asked.limit)
    if not plain:
        raise InputError(f"evaluation.prompts: no prompt left for the {side} side; give a larger file")
    plain = [replace(prompt, base_id=prompt.base_id or prompt.id) for prompt in plain]
    return [*plain, *attack_prompts(plain, asked.attacks, side, each, seed)]


def _sample(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    return balanced_sample(prompts, count, seed=seed)


def _tasks(asked: EvaluationSection, seed: int) -> dict[Split, list[CapabilityTask]]:
    """Capability tasks with disjoint rows: the first drawn are chosen by, the next are reported."""
    report, choose = _cap(asked.capability_rows, asked.limit), _cap(asked.choose_capability, asked.limit)
    if asked.capability is None:
        whole = [*embedded_tasks(), arithmetic_task(report + choose, seed)]
    else:
        whole = [read_task(path) for path in asked.capability]
    sides: dict[Split, list[CapabilityTask]] = {"choose": [], "report": []}
    for task in whole:
        order = sorted(range(len(task.rows)), key=lambda i, t=task: content_id(str(seed), t.name, str(i)))  # type: ignore[misc]
        taken = min(choose, len(order) // 4)
        places = {"choose": order[:taken], "report": order[taken : taken + report]}
        for split in sides:
            rows = tuple(task.rows[i] for i in sorted(places[split]))
            if rows:
                sides[split].append(replace(task, rows=rows))
    return sides


def _cap(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)
