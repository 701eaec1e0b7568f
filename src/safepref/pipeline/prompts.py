"""Which prompts a run trains on, chooses by and reports on, disjoint by template.

What a recipe leaves out comes from the starter set. Where evaluation brings its own files, the starter set
is free for training, and every training prompt whose template also stands in evaluation is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload

from safepref.attacks import attack_prompts
from safepref.data.near import normalised
from safepref.data.readers import iter_pairs, read_pairs, read_prompts
from safepref.data.records import Pair, Prompt, PromptKind, Split
from safepref.data.rows import RowError
from safepref.data.sources import Loaded, load_pairs, load_prompts, source_file
from safepref.data.splits import balanced_sample, split_by_template, without_questions, without_templates_of
from safepref.data.starter import StarterKind, load_extended, load_starter
from safepref.errors import InputError
from safepref.evaluation import (
    CapabilityTask,
    ChatTask,
    arithmetic_task,
    chat_task,
    embedded_tasks,
    named_task,
    solution_task,
)
from safepref.recipe import EXTENDED, SHIPPED, STARTER, EvaluationSection, Names, Recipe, as_names
from safepref.tasks import task_of
from safepref.tasks.sides import TRAINED

Record = TypeVar("Record", Prompt, Pair)

SHARED: Mapping[Split, float] = {"train": 0.5, "choose": 0.1, "report": 0.4}
"""A set of the user's that serves training and evaluation."""
CHAT = ("questions",)
"""What is asked in the chat template where the recipe names nothing."""
SUMS = 100
"""Questions of generated arithmetic where whole files are asked."""
FOREIGN = ("french", "german", "spanish")
"""Topics of the starter set's general requests that are asked in that language."""

ARITHMETIC = "arithmetic"
"""The name of generated arithmetic among `evaluation.capability`."""


@dataclass(slots=True)
class Suite:
    """The prompts and tasks of one side of the evaluation."""

    safety: list[Prompt] = field(default_factory=list)
    """What the run is about: harmful requests, or the prompts of another task."""
    benign: list[Prompt] = field(default_factory=list)
    toxicity: list[Prompt] = field(default_factory=list)
    capability: list[CapabilityTask] = field(default_factory=list)
    ordinary: list[Prompt] = field(default_factory=list)
    nats: list[CapabilityTask] = field(default_factory=list)
    chat: list[ChatTask] = field(default_factory=list)
    """Of arithmetic, all families."""

    @property
    def tasks(self) -> list[CapabilityTask | ChatTask]:
        """All that has questions, each with the rows' own."""
        return [*self.capability, *self.nats, *self.chat]


@dataclass(slots=True)
class Prompts:
    """Everything a run asks: three pools to train on, the user's own pairs, and two suites."""

    harmful: list[Prompt]
    """Of another task, its own prompts."""
    harmless: list[Prompt]
    general: list[Prompt]
    pairs: list[Pair]
    choose: Suite
    report: Suite
    dropped: dict[str, int]
    """Training rows dropped because their template, or a benchmark's question, is evaluated, by pool."""
    notes: list[str]
    """What was left out in reading, a line each."""

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
    notes: list[str] = []
    task = task_of(recipe)
    if not task.adversarial:
        asked = asked.model_copy(update={"attacks": ()})
    harmful = _harmful(recipe, notes) if task.sides is None else task.sides(recipe, notes)
    benign = _benign(recipe, notes)
    general = _sides("general", "general", recipe.data.general_prompts, recipe.seed, notes)
    toxicity: list[Prompt] = []
    if task.adversarial:
        toxicity = _distinct(read_named(asked.toxicity or "real-toxicity-prompts", "toxicity", notes))
    report = Suite(
        safety=_attacked(harmful["report"], "report", asked, seed),
        benign=_sample(benign["report"], _cap(asked.benign_count, asked.limit), seed),
        toxicity=_sample(toxicity, _cap(asked.toxicity_count, asked.limit), seed),
        capability=_tasks(asked, seed),
        ordinary=_sample(
            ordinary_requests(asked.ordinary, "report", notes), _cap(asked.ordinary_count, asked.limit), seed
        ),
        nats=[
            solution_task(name, limit=_cap(asked.nats_rows, asked.limit), seed=seed) for name in asked.nats
        ],
        chat=_chat(asked, "report", _cap(asked.chat_rows, asked.limit), seed),
    )
    ordinary = ordinary_requests(None, "choose", notes)
    if asked.ordinary is not None:
        ordinary = _apart(ordinary, report.ordinary)
    by_chat = _chat(asked, "choose", _cap(asked.choose_chat, asked.limit), seed)
    choose = Suite(
        safety=_attacked(_apart(harmful["choose"], harmful["report"]), "choose", asked, seed),
        benign=_sample(
            _apart(benign["choose"], benign["report"]), _cap(asked.choose_benign, asked.limit), seed
        ),
        capability=[_choose_arithmetic(report, _cap(asked.choose_arithmetic, asked.limit), seed)],
        chat=_without_reported(by_chat, report),
        ordinary=_sample(ordinary, _cap(asked.choose_ordinary, asked.limit), seed),
    )
    pairs = _ready_pairs(recipe, notes)
    held_out = [p for kind in (harmful, benign) for side in ("choose", "report") for p in kind[side]]
    # The user's pairs may hold attacked requests, so they are held against the attacked prompts too.
    shown = [*held_out, *(p for suite in (choose, report) for p in suite.safety if p.attack is not None)]
    questions = [row["question"] for s in (choose, report) for task in s.tasks for row in task.rows]
    questions += [prompt.text for suite in (choose, report) for prompt in suite.ordinary]
    pools = {
        "harmful": harmful["train"],
        "harmless": benign["train"],
        "general": general["train"],
    }
    kept = {name: _not_evaluated(pool, held_out, questions) for name, pool in pools.items()}
    kept["general"] = _not_evaluated(kept["general"], [*choose.ordinary, *report.ordinary], [])
    kept_pairs = _not_evaluated(pairs, shown, questions)
    dropped = {name: len(pool) - len(kept[name]) for name, pool in pools.items()}
    return Prompts(
        **kept,
        pairs=kept_pairs,
        choose=choose,
        report=report,
        dropped=dropped | {"pairs": len(pairs) - len(kept_pairs)},
        notes=notes,
    )


def _not_evaluated(
    records: Sequence[Record], held_out: Sequence[Prompt], questions: Sequence[str]
) -> list[Record]:
    """The records whose template is not evaluated and that are no benchmark question."""
    if not records:
        return []
    kept, _ = without_templates_of(records, held_out)
    return without_questions(kept, questions)[0]


def _harmful(recipe: Recipe, notes: list[str]) -> dict[Split, list[Prompt]]:
    """Harmful prompts for the three sides; one file named for both uses is dealt out by template."""
    evaluation, names = recipe.evaluation.prompts, as_names(recipe.data.prompts)
    shared = [n for n in names if n not in SHIPPED and evaluation and _same(evaluation, n)]
    others = tuple(name for name in names if name not in shared)
    sides = _sides("harmful", "harmful", others, recipe.seed, notes, evaluated=evaluation is None)
    if evaluation is None:
        return sides
    if not shared:
        return sides | {"report": _distinct(read_named(evaluation, "harmful", notes))}
    dealt = split_by_template(read_named(evaluation, "harmful", notes, train=True), SHARED, recipe.seed)
    return {side: _once([*dealt[side], *sides[side]]) for side in dealt}


def _benign(recipe: Recipe, notes: list[str]) -> dict[Split, list[Prompt]]:
    """Harmless look-alikes for the three sides."""
    name, names = recipe.evaluation.benign, recipe.data.harmless_prompts
    sides = _sides("lookalikes", "harmless", names, recipe.seed, notes, evaluated=name is None)
    return sides if name is None else sides | {"report": _distinct(read_named(name, "harmless", notes))}


def ordinary_requests(name: str | None, side: Split, notes: list[str]) -> list[Prompt]:
    """Ordinary requests of one side: those of a file or set, or the starter set's general ones.

    Of the starter set's, those in other languages than English are left out, where the embedded refusal judge
    could not tell a refusal from an answer.
    """
    if name is not None:
        return _distinct(read_named(name, "general", notes))
    return [prompt for prompt in load_starter("general", side) if prompt.category not in FOREIGN]


def _sides(
    kind: StarterKind,
    wanted: PromptKind,
    names: Names | None,
    seed: int,
    notes: list[str],
    *,
    evaluated: bool = True,
) -> dict[Split, list[Prompt]]:
    """What training names, by side. Its own files are trained on and chosen by; what is not reported on by
    files of evaluation's own is reported on by the starter set, whose report side is free otherwise."""
    named = as_names(names)
    own = [name for name in named if name != STARTER]
    sides: dict[Split, list[Prompt]] = {"train": [], "choose": [], "report": []}
    if STARTER in named:
        sides["train"], sides["choose"] = load_starter(kind, "train"), load_starter(kind, "choose")
        if not evaluated:
            sides["train"] += [replace(p, split="train") for p in load_starter(kind, "report")]
    if evaluated:
        sides["report"] = load_starter(kind, "report")
    if own:
        prompts = [
            prompt
            for name in own
            for prompt in (
                load_extended(kind) if name == EXTENDED else read_named(name, wanted, notes, train=True)
            )
        ]
        for side, dealt in split_by_template(prompts, TRAINED, seed).items():
            sides[side] = _once([*sides[side], *dealt])
    return sides


def _once(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of prompts that several sets have, case, spacing and punctuation aside."""
    found: dict[tuple[str, ...], Prompt] = {}
    for prompt in prompts:
        found.setdefault(tuple(normalised(message["content"]) for message in prompt.messages), prompt)
    return list(found.values())


def _apart(prompts: Sequence[Prompt], report: Sequence[Prompt]) -> list[Prompt]:
    return without_templates_of(prompts, report)[0]


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({prompt.id: replace(prompt, split="report") for prompt in prompts}.values())


def _same(first: str, second: str) -> bool:
    """Whether two names stand for one file or set, however they are spelled; a set's copies are one set."""
    if first == second or Path(first).resolve() == Path(second).resolve():
        return True
    if Path(first).is_file() or Path(second).is_file():
        return False
    (one, file), (other, elsewhere) = source_file(first), source_file(second)
    return one.name == other.name and file is elsewhere is None


def read_named(name: str, kind: PromptKind, notes: list[str], *, train: bool = False) -> list[Prompt]:
    """The prompts of a file, a named set, NAME@hub or NAME:FILE; what was left out is added to `notes`.

    Raises:
        InputError: as `read_prompts` and `load_prompts`.
    """
    if Path(name).is_file():
        return read_prompts(name, kind, source=Path(name).name)
    source, file = source_file(name)
    prompts, loaded = load_prompts(source, file, kind=kind, purpose="train" if train else "evaluate")
    _note_bad_rows(name, loaded, notes)
    return prompts


def _ready_pairs(recipe: Recipe, notes: list[str]) -> list[Pair]:
    name = recipe.data.pairs
    if name is None:
        return []
    if Path(name).is_file():
        pairs = _sound_pairs(Path(name), notes) if recipe.data.drop_bad else _all_pairs(Path(name))
    else:
        source, file = source_file(name)
        pairs, loaded = load_pairs(source, file)
        _note_bad_rows(name, loaded, notes)
    limit = recipe.data.pairs_limit
    return balanced_sample(pairs, limit, seed=recipe.seed) if limit is not None else pairs


def _note_bad_rows(name: str, loaded: Loaded, notes: list[str]) -> None:
    if loaded.bad:
        notes.append(f"{name}: {len(loaded.bad)} rows are bad and left out, the first: {loaded.bad[0]}")


def _all_pairs(path: Path) -> list[Pair]:
    try:
        return read_pairs(path)
    except RowError as error:
        raise InputError(f"{error}; or leave such rows out with data.drop_bad=true") from error


def _sound_pairs(path: Path, notes: list[str]) -> list[Pair]:
    found = [pair for _, pair in iter_pairs(path)]
    kept = [pair for pair in found if isinstance(pair, Pair)]
    if not kept:
        raise InputError(f"{path}: all {len(found)} rows are bad, the first: {found[0]}")
    if len(kept) < len(found):
        notes.append(f"{path}: {len(found) - len(kept)} of {len(found)} rows are bad and left out")
    return kept


def _attacked(prompts: Sequence[Prompt], side: Split, asked: EvaluationSection, seed: int) -> list[Prompt]:
    """Plain prompts, a sample of them under every attack's templates of this side, and ready attacked ones.

    Attacked prompts are drawn from the plain ones, so each has its plain twin in the suite; those that a set
    brings attacked (adversarial ALERT) have none, and are drawn as many for each family.
    """
    report = side == "report"
    bare, ready = apart_by_attack(prompts)
    plain = _sample(bare, _cap(asked.plain if report else asked.choose_plain, asked.limit), seed)
    each = _cap(asked.attacked if report else asked.choose_attacked, asked.limit)
    if not plain and not ready:
        raise InputError(f"evaluation.prompts: no prompt left for the {side} side; give a larger file")
    plain = [replace(prompt, base_id=prompt.base_id or prompt.id) for prompt in plain]
    drawn = [prompt for family in ready.values() for prompt in _sample(family, each, seed)]
    return [*plain, *attack_prompts(plain, asked.attacks, side, each, seed), *drawn]


def apart_by_attack(prompts: Sequence[Prompt]) -> tuple[list[Prompt], dict[str, list[Prompt]]]:
    """Plain prompts, and those that came attacked by their family."""
    ready: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.attack is not None:
            ready.setdefault(prompt.attack, []).append(prompt)
    return [prompt for prompt in prompts if prompt.attack is None], ready


def _sample(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    return balanced_sample(prompts, count, seed=seed)


def _tasks(asked: EvaluationSection, seed: int) -> list[CapabilityTask]:
    rows = _cap(asked.capability_rows, asked.limit)
    sums = rows or SUMS
    if asked.capability is None:
        return [*embedded_tasks(limit=rows, seed=seed), arithmetic_task(sums, seed)]
    return [
        arithmetic_task(sums, seed) if name == ARITHMETIC else named_task(name, limit=rows, seed=seed)
        for name in asked.capability
    ]


def _chat(asked: EvaluationSection, side: Split, rows: int | None, seed: int) -> list[ChatTask]:
    names = CHAT if asked.chat is None else asked.chat
    tasks = [chat_task(name, side, limit=rows, seed=seed) for name in names] if rows != 0 else []
    return [task for task in tasks if task is not None]


def _without_reported(tasks: Sequence[ChatTask], report: Suite) -> list[ChatTask]:
    """The tasks without questions that are reported on."""
    taken = {row["question"] for task in report.tasks for row in task.rows}
    return [replace(t, rows=tuple(row for row in t.rows if row["question"] not in taken)) for t in tasks]


def _choose_arithmetic(report: Suite, count: int, seed: int) -> CapabilityTask:
    """Questions to choose by, none of which is reported on."""
    tasks = [task for task in report.tasks if task.name == ARITHMETIC]
    taken = {row["question"] for task in tasks for row in task.rows}
    return arithmetic_task(count, seed + 1, without=taken)


@overload
def _cap(count: int, limit: int | None) -> int: ...
@overload
def _cap(count: int | None, limit: int | None) -> int | None: ...
def _cap(count: int | None, limit: int | None) -> int | None:
    """The smaller of the two, null where both are."""
    known = [number for number in (count, limit) if number is not None]
    return min(known, default=None)
