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
from safepref.data.records import Pair, Prompt, PromptKind, Split
from safepref.data.sources import SOURCES, get_source, load_pairs, load_prompts
from safepref.data.splits import balanced_sample, split_by_template, without_templates_of
from safepref.data.starter import StarterKind, load_starter
from safepref.errors import InputError
from safepref.evaluation import CapabilityTask, arithmetic_task, embedded_tasks, read_task
from safepref.progress import console
from safepref.recipe import EvaluationSection, Recipe

SHARED: Mapping[Split, float] = {"train": 0.5, "choose": 0.1, "report": 0.4}
"""A set of the user's that serves training and evaluation."""
TRAINED: Mapping[Split, float] = {"train": 0.85, "choose": 0.15}
"""A set of the user's that serves training alone."""


ARITHMETIC = "arithmetic"
"""The name of generated arithmetic among `evaluation.capability`."""


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

    What evaluation brings is reported on and nothing else: strengths are chosen by the starter set, by a part
    of the training prompts and by generated arithmetic, since public benchmarks are for evaluation only.

    Raises:
        InputError: a file or set that cannot be read, or too few prompts on a side.
    """
    asked, seed = recipe.evaluation, recipe.seed
    harmful = _harmful(recipe)
    benign = _benign(recipe)
    toxicity = _distinct(_read(asked.toxicity or "real-toxicity-prompts", "toxicity"))
    report = Suite(
        safety=_attacked(harmful["report"], "report", asked, seed),
        benign=_sample(benign["report"], _cap(asked.benign_count, asked.limit), seed),
        toxicity=_sample(toxicity, _cap(asked.toxicity_count, asked.limit), seed),
        capability=_tasks(asked, seed),
    )
    choose = Suite(
        safety=_attacked(_apart(harmful["choose"], harmful["report"]), "choose", asked, seed),
        benign=_sample(
            _apart(benign["choose"], benign["report"]), _cap(asked.choose_benign, asked.limit), seed
        ),
        capability=[_choose_arithmetic(report, _cap(asked.choose_arithmetic, asked.limit), seed)],
    )
    pairs = _ready_pairs(recipe)
    held_out = [p for kind in (harmful, benign) for side in ("choose", "report") for p in kind[side]]
    kept_harmful, dropped_harmful = without_templates_of(harmful["train"], held_out)
    kept_harmless, dropped_harmless = without_templates_of(benign["train"], held_out)
    general, dropped_general = without_templates_of(load_starter("general", "train"), held_out)
    # The user's pairs may hold attacked requests, so they are held against the attacked prompts too.
    shown = [*held_out, *(p for suite in (choose, report) for p in suite.safety if p.attack is not None)]
    kept_pairs, dropped_pairs = without_templates_of(pairs, shown) if pairs else ([], [])
    return Prompts(
        harmful=kept_harmful,
        harmless=kept_harmless,
        general=general,
        pairs=kept_pairs,
        choose=choose,
        report=report,
        dropped={
            "harmful": len(dropped_harmful),
            "harmless": len(dropped_harmless),
            "general": len(dropped_general),
            "pairs": len(dropped_pairs),
        },
    )


def _harmful(recipe: Recipe) -> dict[Split, list[Prompt]]:
    """Harmful prompts for the three sides; one file named for both uses is dealt out by template."""
    train, evaluation = recipe.data.prompts, recipe.evaluation.prompts
    if evaluation is not None and train is not None and _same(evaluation, train):
        return split_by_template(_read(evaluation, "harmful", train=True), SHARED, recipe.seed)
    sides = _starter("harmful", evaluated=evaluation is None)
    if train is not None:
        sides |= split_by_template(_read(train, "harmful", train=True), TRAINED, recipe.seed)
    if evaluation is not None:
        sides["report"] = _distinct(_read(evaluation, "harmful"))
    return sides


def _benign(recipe: Recipe) -> dict[Split, list[Prompt]]:
    """Harmless look-alikes for the three sides."""
    name = recipe.evaluation.benign
    sides = _starter("lookalikes", evaluated=name is None)
    if name is not None:
        sides["report"] = _distinct(_read(name, "harmless"))
    return sides


def _starter(kind: StarterKind, *, evaluated: bool) -> dict[Split, list[Prompt]]:
    """The starter set's sides; its report side is trained on where evaluation brings its own prompts."""
    train, choose, report = (load_starter(kind, split) for split in ("train", "choose", "report"))
    if evaluated:
        return {"train": train, "choose": choose, "report": report}
    return {"train": [*train, *(replace(p, split="train") for p in report)], "choose": choose, "report": []}


def _apart(prompts: Sequence[Prompt], report: Sequence[Prompt]) -> list[Prompt]:
    return without_templates_of(prompts, report)[0]


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({prompt.id: replace(prompt, split="report") for prompt in prompts}.values())


def _same(first: str, second: str) -> bool:
    """Whether two names stand for one file or set, however they are spelled."""
    return first == second or Path(first).resolve() == Path(second).resolve()


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
        pairs = _sound_pairs(Path(name)) if recipe.data.drop_bad else _all_pairs(Path(name))
    elif name.casefold().replace("_", "-") not in SOURCES and ("/" in name or "." in name):
        raise InputError(f"data.pairs {name}: no such file; give a path, or a named set of pairs")
    else:
        pairs, _ = load_pairs(get_source(name).name)
    limit = recipe.data.pairs_limit
    return balanced_sample(pairs, limit, seed=recipe.seed) if limit is not None else pairs


def _all_pairs(path: Path) -> list[Pair]:
    try:
        return read_pairs(path)
    except InputError as error:
        raise InputError(f"{error}; or leave such rows out with data.drop_bad=true") from error


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


def _tasks(asked: EvaluationSection, seed: int) -> list[CapabilityTask]:
    rows = _cap(asked.capability_rows, asked.limit)
    if asked.capability is None:
        return [*embedded_tasks(limit=rows, seed=seed), arithmetic_task(rows, seed)]
    return [
        arithmetic_task(rows, seed) if name == ARITHMETIC else read_task(name, limit=rows, seed=seed)
        for name in asked.capability
    ]


def _choose_arithmetic(report: Suite, count: int, seed: int) -> CapabilityTask:
    """Questions to choose by, none of which is reported on."""
    taken = {row["question"] for task in report.capability if task.name == ARITHMETIC for row in task.rows}
    return arithmetic_task(count, seed + 1, without=taken)


def _cap(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)
