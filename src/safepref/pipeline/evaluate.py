"""`safepref evaluate`: models or adapters scored on prompts of one's own, plain and under every attack."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from safepref.attacks import attack_prompts
from safepref.data.contamination import summary_line
from safepref.data.records import Prompt, PromptKind
from safepref.data.splits import balanced_sample
from safepref.data.starter import load_starter
from safepref.errors import InputError
from safepref.evaluation import (
    ChatTask,
    EvaluationSuite,
    Policy,
    above_chance,
    arithmetic_task,
    base_answers,
    base_families,
    chat_task,
    evaluate,
    named_task,
    narrowed,
    read_samples,
    solution_task,
)
from safepref.evaluation.suites import BaseAnswer
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.hardware import threads
from safepref.judges.refusal_target import read_threshold
from safepref.judges.toxicity_models import check_toxicity
from safepref.logprobs.store import model_fingerprint
from safepref.models import LoadedModel, load_model, variant
from safepref.pipeline.ability import add_above_chance
from safepref.pipeline.contamination import asked_texts, checked, judged_texts, trained_in
from safepref.pipeline.inputs import licences
from safepref.pipeline.judging import Bench
from safepref.pipeline.logs import log_model
from safepref.pipeline.prompts import ARITHMETIC, CHAT, SUMS, apart_by_attack, ordinary_requests, read_named
from safepref.progress import console, progress_by_stage
from safepref.recipe import EvaluationSection, GenerationSection, JudgeSection
from safepref.report.unread import unread_notes
from safepref.store import cache_dir, sha256_json, write_json, write_jsonl

SCHEMA = 1


DEFAULTS = EvaluationSection()
"""What `safepref run` measures with."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to score and on what; the fields are the command's options."""

    models: tuple[str, ...]
    adapter: Path | None = None
    strength: float = 1.0
    prompts: Path | str | None = None
    """These three: a file, a named set, or NAME:FILE for a file in a set's own columns."""
    benign: Path | str | None = None
    toxicity: Path | str | None = None
    capability: tuple[Path | str, ...] = ()
    """Files of rows, TASK:FILE, lm-eval's task files or the ids of its tasks."""
    ordinary: Path | str | None = None
    """Ordinary requests, as the three above."""
    chat: tuple[str, ...] = ()
    """Asked in the chat template: as the recipe's `evaluation.chat`."""
    nats: tuple[Path | str, ...] = ()
    """Files of worked answers, for their nats per token."""
    base: str | None = None
    """The model whose own answers to ordinary requests are to stay likely, and whose arithmetic decides which
    families are asked; null takes the model itself, without the adapter."""
    attacks: tuple[str, ...] = DEFAULTS.attacks
    limit: int | None = None
    answer_tokens: int = DEFAULTS.answer_tokens
    continuation_tokens: int = DEFAULTS.continuation_tokens
    system: str | None = None
    judge: str = "report"
    calibration: Path | None = None
    refusal: Path | None = None
    """These two as the recipe's `judges.refusal` and `judges.toxicity`."""
    toxicity_judge: str = JudgeSection().toxicity
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = GenerationSection().batch_size
    seed: int = 0


def evaluate_models(
    request: EvaluationRequest, json_path: Path | None = None, samples: Path | None = None
) -> dict[str, Any]:
    """Score every model of a request; `safepref.evaluate` and the command are this function.

    Args:
        request: models, prompts and settings.
        json_path: where the result is written, with an Inspect log in the folder `inspect` beside it; null
            writes neither.
        samples: where every prompt, response and verdict is written, as JSON lines.

    Returns:
        What is written: one model gives `{"schema", "model", "adapter", "strength", "scores", "judges"}`;
        several give `{"schema", "evaluations": [...], "judges"}` with one such object each, cards once.
        Finished answers are kept in the cache, so the same call continues a stopped one.

    Raises:
        InputError: a model, judge, adapter or file that cannot be read, or an adapter for several models.
    """
    if request.adapter is not None and len(request.models) > 1:
        raise InputError(
            f"--adapter {request.adapter} fits one model, but --model names {len(request.models)}"
        )
    if request.adapter is not None and not request.adapter.is_dir():
        raise InputError(f"--adapter {request.adapter}: no such folder; give RUN/adapters/METHOD")
    for path in (json_path, samples):
        _check_writable(path)
    check_toxicity(request.toxicity_judge)
    if request.refusal is not None:
        read_threshold(request.refusal)
    suite = _suite(request)
    bench = Bench.load(_judging(request))
    judges = bench.reporting()
    overlap = _contamination(request, suite)
    console().print(summary_line(overlap))
    results, rows = [], []
    used: list[Path] = []
    whole = suite
    reference = _reference(request, suite, used)
    for model_id in request.models:
        loaded = load_model(model_id, dtype=request.dtype, device=request.device)
        torch.set_num_threads(threads())
        identity = f"{model_fingerprint(loaded)}:{_adapter_hash(request.adapter)}:{request.strength:g}"
        asked = {k: str(v) for k, v in asdict(request).items()}
        work = cache_dir("evaluate", sha256_json([identity, asked])[:16])
        used.append(work)
        suite = whole
        questions = sum(len(task.rows) for task in (*suite.capability, *suite.nats))
        questions += sum(len(task.rows) for task in suite.chat)
        console().print(
            f"{model_id}: {len(suite.safety)} harmful prompts, plain and attacked, {len(suite.benign)} "
            f"look-alikes, {len(suite.toxicity)} beginnings, {questions} benchmark rows, "
            f"{len(suite.ordinary)} ordinary requests"
        )
        untrained = request.adapter is None or request.strength == 0
        own_base = untrained and request.base in (None, model_id)
        if _needs_base(suite):
            suite = _against(suite, request, reference or _base_side(request, suite, loaded, work))
        with variant(loaded, request.adapter, request.strength), progress_by_stage() as show:
            engine = LocalEngine(loaded, batch_size=request.batch_size, system=request.system)
            policy = Policy(identity, engine, loaded.model, loaded.tokenizer, own_base)
            scores = evaluate(policy, suite, judges, samples_dir=work, progress=show)
        for line in unread_notes(model_id, scores):
            console().print(line)
        label = {"model": model_id, "strength": request.strength}
        mine = [{**row, **label} for row in read_samples(work)]
        if own_base:
            add_above_chance(scores, above_chance(mine))
        rows += mine
        adapter = str(request.adapter) if request.adapter is not None else None
        if json_path is not None:
            settings = {"adapter": adapter, "strength": request.strength}
            log_model(json_path, model_id, settings | {"answer_tokens": request.answer_tokens}, mine, scores)
        results.append(
            {"model": model_id, "adapter": adapter, "strength": request.strength, "scores": scores}
        )
    for line in bench.say_reuse():
        console().print(line)
    if samples is not None:
        write_jsonl(samples, rows)
    scored = results[0] if len(results) == 1 else {"evaluations": results}
    value = {"schema": SCHEMA, **scored, "contamination": overlap, "judges": bench.cards()}
    if json_path is not None:
        write_json(json_path, value)
    # Only now: a call that is stopped before has its answers still.
    for work in used:
        shutil.rmtree(work, ignore_errors=True)
    return value


@dataclass(frozen=True, slots=True)
class _Base:
    """What a base says, which others are held against."""

    answers: dict[str, BaseAnswer]
    families: dict[str, Any]
    """As `base_families` gives them; empty where no arithmetic is asked."""


def _needs_base(suite: EvaluationSuite) -> bool:
    return bool(suite.ordinary) or any(task.families for task in suite.chat)


def _reference(request: EvaluationRequest, suite: EvaluationSuite, used: list[Path]) -> _Base | None:
    """What the model that `base` names says, null where none is named; its folder goes to `used`."""
    if request.base is None or not _needs_base(suite):
        return None
    loaded = load_model(request.base, dtype=request.dtype, device=request.device)
    torch.set_num_threads(threads())
    asked = [prompt.id for prompt in suite.ordinary]
    key = sha256_json([model_fingerprint(loaded), asked, request.answer_tokens, request.system])
    work = cache_dir("evaluate", key[:16])
    used.append(work)
    return _base_side(request, suite, loaded, work)


def _base_side(request: EvaluationRequest, suite: EvaluationSuite, loaded: LoadedModel, work: Path) -> _Base:
    """A model's own answers to the ordinary requests, and which families of arithmetic it gets right."""
    engine = LocalEngine(loaded, batch_size=request.batch_size, system=request.system)
    base = Policy(f"{model_fingerprint(loaded)}:base", engine, loaded.model, loaded.tokenizer)
    answers, families = work / "base" / "answers.jsonl", work / "base" / "families.json"
    sums = any(task.families for task in suite.chat)
    with progress_by_stage() as show:
        return _Base(
            base_answers(base, suite.ordinary, suite.answer, answers, system=request.system, progress=show)
            if suite.ordinary
            else {},
            base_families(base, families, progress=show) if sums else {},
        )


def _against(suite: EvaluationSuite, request: EvaluationRequest, base: _Base) -> EvaluationSuite:
    """The suite with what the base says in it."""
    for name, found in base.families.get("families", {}).items():
        asked = "asked" if name in base.families["selected"] else "left out"
        console().print(f"  {name}: the base gets {found['score']:.0%} of {found['n']} right, {asked}")
    chat = [narrowed(task, base.families.get("selected", ()), request.limit) for task in suite.chat]
    return replace(suite, base_answers=base.answers, chat=tuple(chat))


def _judging(request: EvaluationRequest) -> JudgeSection:
    """The recipe's section that the request stands for."""
    calibration, refusal = (
        None if path is None else str(path) for path in (request.calibration, request.refusal)
    )
    return JudgeSection(
        report=request.judge, calibration=calibration, refusal=refusal, toxicity=request.toxicity_judge
    )


def _contamination(request: EvaluationRequest, suite: EvaluationSuite) -> dict[str, Any]:
    """What the judges, and the adapter's run where it is at hand, learned from, against all that is asked."""
    prompts = (*suite.safety, *suite.benign, *suite.toxicity, *suite.ordinary)
    asked = asked_texts([(prompts, (*suite.capability, *suite.nats, *suite.chat))])
    behind, unknown = judged_texts(_judging(request), asked)
    trained = trained_in(request.adapter)
    if not trained:
        unknown.insert(0, "training")
    return checked([*trained, *behind], asked, unknown)[0]


def _check_writable(path: Path | None) -> None:
    """Refuse a place that a result cannot be written to, before hours of work."""
    if path is None:
        return
    folder = next(place for place in path.absolute().parents if place.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path}: cannot be written; name a file in a folder that can")


def _suite(request: EvaluationRequest) -> EvaluationSuite:
    parts = (request.prompts, request.benign, request.toxicity, request.capability)
    named = any((*parts, request.ordinary, request.nats, request.chat))
    harmful = _read(request.prompts, "harmful") if request.prompts or not named else []
    harmful, ready = apart_by_attack(harmful)
    benign = _read(request.benign, "harmless") if request.benign or not named else []
    if request.limit is not None:
        harmful = balanced_sample(harmful, request.limit, seed=request.seed)
        benign = balanced_sample(benign, request.limit, seed=request.seed)
    ordinary = _ordinary(request) if request.ordinary or not named else []
    plain = [replace(prompt, base_id=prompt.base_id or prompt.id) for prompt in harmful]
    attacked = attack_prompts(plain, request.attacks, "report", None, request.seed) if plain else []
    for family in ready.values():
        limit = request.limit or len(family)
        attacked += balanced_sample(family, min(limit, len(family)), seed=request.seed)
    toxicity = _read(request.toxicity, "toxicity") if request.toxicity else []
    return EvaluationSuite(
        safety=(*plain, *attacked),
        benign=tuple(benign),
        toxicity=tuple(toxicity[: request.limit]),
        capability=tuple(
            arithmetic_task(request.limit or SUMS, request.seed)
            if name == ARITHMETIC
            else named_task(str(name), limit=request.limit, seed=request.seed)
            for name in request.capability
        ),
        ordinary=tuple(ordinary),
        chat=tuple(_chat(request, () if named else CHAT)),
        nats=tuple(solution_task(name, limit=request.limit, seed=request.seed) for name in request.nats),
        answer=Sampling(request.answer_tokens),
        continuation=Sampling(request.continuation_tokens),
        system=request.system,
        seed=request.seed,
    )


def _read(path: Path | str | None, kind: PromptKind) -> list[Prompt]:
    if path is None:
        return load_starter("harmful" if kind == "harmful" else "lookalikes", "report")
    notes: list[str] = []
    prompts = read_named(str(path), kind, notes)
    for line in (*licences([str(path)]).values(), *notes):
        console().print(line)
    distinct = list({prompt.id: prompt for prompt in prompts}.values())
    if len(distinct) < len(prompts):
        console().print(f"{path}: {len(prompts) - len(distinct)} repeated prompts are asked once")
    return distinct


def _chat(request: EvaluationRequest, default: tuple[str, ...]) -> list[ChatTask]:
    names = request.chat or default
    found = [chat_task(name, "report", limit=request.limit, seed=request.seed) for name in names]
    return [task for task in found if task is not None]


def _ordinary(request: EvaluationRequest) -> list[Prompt]:
    if request.ordinary is None:
        prompts = ordinary_requests(None, "report", [])
    else:
        prompts = _read(request.ordinary, "general")
    return prompts if request.limit is None else balanced_sample(prompts, request.limit, seed=request.seed)


def _adapter_hash(folder: Path | None) -> str:
    if folder is None:
        return "base"
    found = sorted([*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")])
    return sha256_json([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found])
