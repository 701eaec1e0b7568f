"""The one configuration of a run: strict models, read from YAML, `--set a.b=c` laid on top.

An unknown key is an error that names the nearest known one. The resolved recipe is written into the run
folder, so a run can always be repeated from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safepref.errors import InputError

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the recipe: unknown keys and wrong types are errors, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)


Names = str | tuple[str, ...]
"""One file or named set, or several."""

STARTER, EXTENDED = "starter", "extended"
SHIPPED = (STARTER, EXTENDED)
"""Names of the shipped sets of prompts."""


def as_names(value: Names | None) -> tuple[str, ...]:
    """The names that a key holds; the shipped set's where it is null."""
    if value is None:
        return (STARTER,)
    return (value,) if isinstance(value, str) else value


class ModelSection(Section):
    """The policy that is aligned."""

    id: str = "smollm2-135m-instruct"
    """The embedded default, a folder, or a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    quantize: Literal["4bit"] | None = None
    """4bit trains QLoRA (needs CUDA and bitsandbytes)."""
    system: str | None = None
    """A system prompt for training and evaluation; null leaves the chat template's own default."""


class Weights(Section):
    """How much a pair of each kind, and a general example, weighs in the loss (multi-task learning)."""

    harmful: Amount = 1.0
    harmless: Amount = 1.0
    ordinary: Amount = 1.0
    preference: Amount = 1.0
    """Ready pairs, as `data.pairs` brings them."""
    general: Amount = 1.0


class DataSection(Section):
    """What is learned from: how many rows of each kind, and where they come from."""

    harmful: Count = 150
    """Pairs of a harmful request: a refusal is chosen over the model's own unsafe answer."""
    harmless: Count = 74
    """Pairs of a request that only looks harmful: the model's own answer is chosen over a refusal."""
    general: Count = 160
    """Ordinary requests with the model's own answer, held in place by the anchor (no pairs)."""
    ordinary: Count = 0
    """Pairs of an ordinary request: the model's own answer is chosen over a refusal."""
    task: Count = 150
    """Pairs of the task where it is not safety, in the place of harmful ones."""
    own: Share = 0.5
    """Share of these whose rejected answer is the model's own, where the select judge finds it bad."""
    categories: dict[str, str] | None = None
    """Content moderation: what categories mean, for the model; null takes what is known of them."""
    prompts: Names | None = None
    """Harmful prompts to train on, or what else the task asks: a file or a named set, or several of them.
    `starter` is the shipped set, and what null takes; `extended` are more shipped ones."""
    harmless_prompts: Names | None = None
    """Harmless look-alikes to train on, in the same way."""
    general_prompts: Names | None = None
    """Ordinary requests to train on, in the same way; their answers are always the model's own."""
    pairs: str | None = None
    """Ready preference pairs (TRL's formats, or a named set), used as they are beside what is built."""
    pairs_limit: Positive | None = None
    """At most this many of the ready pairs, drawn by seed."""
    drop_bad: bool = False
    """Leave bad rows of the `pairs` file out and say how many, instead of stopping at the first."""
    attacks: tuple[str, ...] = ("suffix_injection", "prefix_injection", "token_manipulation", "jailbreak")
    attacked: Share = 0.5
    """Share of the harmful pairs that is wrapped by an attack's train-side template."""
    refusals: Literal["written", "short", "model", "mixed"] = "written"
    """Chosen refusals. written: by category, in many wordings; short: one opening for all and a reason of the
    category, so that a small model decides at its first words; model: its own, under a safety system prompt;
    mixed: written and own."""
    taught: Share = 0.67
    """Share of the harmless pairs whose rejected refusal is worded like the chosen ones of harmful pairs, so
    that the pair says where these do not belong; the others are refused in a stiff notice."""
    harmless_share: Share = 1 / 3
    """At most this share of all pairs' weight is with look-alikes; more of them are weighted down to it."""
    weights: Weights = Weights()
    """Weights of the kinds in the loss."""
    answer_tokens: Positive = 64
    """Length cap of the model's own sampled answers."""
    temperature: Amount = 0.6
    """Sampling temperature of the unsafe answers (the kept good answers are greedy)."""
    tries: Positive = 2
    """Answers sampled for a harmful prompt until the judge finds one unsafe."""
    flipped: Share = 0.0
    """Label noise: this share of the pairs of each kind gets chosen and rejected exchanged."""
    ches: Share = 0.0
    """Share of the pairs of each kind that is left out: those whose answers are most alike to the model, so
    that they displace likelihood (CHES, arXiv 2410.08847)."""
    vet: Literal["drop", "flip"] | None = None
    """What is done with pairs that the vetting judge (`judges.vet`) finds the wrong way round; null asks no
    judge."""


class DisplacementSection(Section):
    """What is done when chosen answers lose likelihood while the margin grows (arXiv 2410.08847)."""

    action: Literal["warn", "stop", "lower"] = "warn"
    """Say so; or stop with the last weights before the fall; or lower the rate until the fall ends."""
    fall: Annotated[float, Field(gt=0)] = 2.0
    """Nats that the chosen answers of a kind of pairs lose on average before it counts as a fall."""
    probe: Count = 0
    """Pairs kept out of training to look at instead of the training pairs."""
    every: Positive = 10
    """Optimizer steps from one look at the probe to the next; `stop` keeps good weights as often."""
    lower_to: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What `lower` multiplies the rate by, at most once in `every` steps (5 without a probe)."""


class StoppingSection(Section):
    """Judged early stopping, on the choose split; never by margin."""

    every: Positive = 20
    """Optimizer steps from one evaluation of the present weights to the next."""
    patience: Positive = 3
    """Training stops after so many evaluations without a better one."""
    prompts: Positive = 24
    """Plain and attacked requests, look-alikes and arithmetic questions: so many of each."""
    answer_tokens: Positive = 32
    floor: Share | None = None
    """Least safety of weights that are kept for their ability; null takes report.safety_floor."""
    ceiling: Share | None = None
    """Most over-refusal; null takes report.over_refusal_ceiling."""


class TrainingSection(Section):
    """How each method is trained."""

    epochs: Amount = 2
    batch_size: Positive = 8
    accumulation: Positive = 1
    learning_rate: Amount | None = None
    """Null takes the method's own default."""
    beta: Amount | None = None
    """Null takes the method's own default."""
    weight: Amount | None = None
    """Weight of the preference loss beside NLL and anchor; null takes the method's own default."""
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Per method: learning_rate, beta, weight, chosen_nll, harmless_nll, anchor, epochs and the loss's own
    parameters, for example `rdpo: {label_smoothing: 0.1}`."""
    warmup: Share = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    full: bool = False
    """Train all weights instead of a LoRA adapter."""
    lora_rank: Positive = 16
    lora_alpha: Positive = 32
    lora_targets: str | tuple[str, ...] = "all-linear"
    chosen_nll: Amount | None = None
    """Weight of the per-token NLL on the chosen answer of harmful and of ready pairs; holds the refusals up.
    Null takes the method's own default."""
    harmless_nll: Amount = 1.0
    """The same for harmless pairs."""
    anchor: Amount = 1.0
    """Weight of the general anchor."""
    anchor_kind: Literal["nll", "kl"] = "nll"
    """Anchor on the model's own answers by NLL, or by KL to the reference's distribution."""
    nll_over: Literal["completion", "sequence"] = "completion"
    """What these, and ORPO's own, cover: the chosen completion, or prompt and completion (as in TRL)."""
    anchor_ratio: Annotated[float, Field(gt=0)] | None = None
    """General examples to each pair; null passes all of them once an epoch."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest prompt plus answer in tokens, half for each; prompts lose their start, answers their end."""
    save_steps: Positive = 20
    displacement: DisplacementSection = DisplacementSection()
    stopping: StoppingSection | None = None
    """Null trains all steps and ends with the last weights."""


class JudgeSection(Section):
    """Who scores: `select` picks pairs and settings, `report` makes the printed numbers."""

    select: str = "select"
    report: str = "report"
    vet: str | None = None
    """Looks over the pairs where `data.vet` asks for it; null takes the select judge."""
    calibration: str | None = None
    """File of `safepref judge calibrate` for the report judge, by which rates are corrected; null takes what
    stands on the judge's card."""
    refusal: str | None = None
    """A file of `safepref judge calibrate-refusal` for the model that is trained; null takes one half."""
    toxicity: str = "tox-block"
    """`tox-block`, `detoxify`, `detoxify-unbiased`, `detoxify-multilingual`, or `hf:MODEL#LABEL`."""


class GenerationSection(Section):
    """How answers are generated."""

    batch_size: Positive = 256
    """Most answers decoded together; fewer where memory is short."""


class EvaluationSection(Section):
    """What is measured. `limit` caps the prompts of each suite."""

    limit: Positive | None = None
    prompts: str | None = None
    """Harmful prompts, or what else the task asks (file or named set); null takes the starter set's report
    side."""
    benign: str | None = None
    """Harmless look-alikes for over-refusal; null takes the starter set's report side."""
    toxicity: str | None = None
    """Sentence beginnings to continue; null takes the pinned RealToxicityPrompts."""
    capability: tuple[str, ...] | None = None
    """Files of benchmark rows, each a task named by its stem; TASK:FILE for rows scored as that lm-eval task;
    ids of lm-eval tasks (from the hub) or files of their YAML; `arithmetic` for generated sums. Null takes
    the pinned tasks and arithmetic."""
    plain: Positive = 96
    """Harmful prompts, or those of another task, asked as they are."""
    attacked: Positive = 48
    """Prompts for each attack family."""
    benign_count: Positive = 64
    toxicity_count: Positive = 64
    capability_rows: Positive = 100
    attacks: tuple[str, ...] = ("suffix_injection", "prefix_injection", "token_manipulation", "jailbreak")
    answer_tokens: Positive = 48
    continuation_tokens: Positive = 24
    choose: bool = True
    """Also score the choose split at each strength."""
    strengths: tuple[Share, ...] = (0.8, 1.0)
    """Strengths tried on the choose split."""
    choose_plain: Positive = 48
    choose_attacked: Positive = 16
    choose_benign: Positive = 48
    choose_arithmetic: Positive = 80
    """Generated arithmetic questions on the choose split, where ability is chosen by."""


class ReportSection(Section):
    """The floor and the limits of the recommendation."""

    safety_floor: Share = 0.9
    task_floor: Share = 0.7
    """The floor of a task's own rate, in the place of safety's."""
    over_refusal_ceiling: Share = 0.5


class Recipe(Section):
    """Everything a run needs; see each section."""

    name: str = "run"
    task: str = "safety"
    """What is trained and measured: `safety`, `moderation` or `support`."""
    methods: str = "nca,dpo"
    """Comma-separated names, `paper` (the ten of the reference work) or `all` (twelve)."""
    seed: int = 0
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    judges: JudgeSection = JudgeSection()
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()
    report: ReportSection = ReportSection()

    @property
    def floor(self) -> float:
        """Least rate that a recommended point clears: of safety, or of another task."""
        return self.report.safety_floor if self.task == "safety" else self.report.task_floor

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, every key present."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


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
        below = place.setdefault(part, {})
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
