"""General ability: benchmark rows scored through lm-eval's own task code, and generated arithmetic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from safepref.data.records import Prompt, content_id
from safepref.evaluation.arithmetic import given_number
from safepref.evaluation.hub_tasks import loaded_task
from safepref.evaluation.quiet import quiet
from safepref.evaluation.row_tasks import lm_eval_task
from safepref.evaluation.samples import (
    RESUME,
    Policy,
    Progress,
    ResumeLog,
    answers,
    sample_row,
    silent,
    write_samples,
)
from safepref.evaluation.tasks import SOLUTION_TOKENS, CapabilityTask, Row, chance, final_number
from safepref.generation.base import Sampling
from safepref.progress import console
from safepref.statistics import DRAWS, Interval, percentile_interval, resampled_means, wilson

TOKEN_LIKELIHOOD = "token_likelihood"
LIKELIHOOD_KINDS = ("choices", "letters", "gap", "truth", "truths", "solution")
FEWSHOT_SEED = 1234
"""lm-eval's default."""
ARITHMETIC_TOKENS = 32
"""Room for an answer that is a line."""


def run_capability(
    policy: Policy,
    tasks: tuple[CapabilityTask, ...],
    samples_dir: Path,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score every task and write `capability.<task>.jsonl`.

    Returns:
        `mean` and its `interval` over the tasks that count right answers, all alike (a likelihood per token
        hardly moves where answers turn wrong, so it enters the mean only where there is nothing else);
        `tasks`, `intervals`, `metrics`, `n` and `chance` by task; `skipped`, the reason by task that this
        policy cannot be scored on. All scores are 0..1 and higher is better.
    """
    scored: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    lm = _lm(policy, samples_dir) if any(task.style.kind != "generate" for task in tasks) else None
    for task in tasks:
        if task.style.kind == "generate":
            rows = _generate(policy, task, samples_dir, progress)
        elif lm is None:
            skipped[task.name] = "needs log-likelihoods, which this engine does not give"
            continue
        else:
            rows = _by_protocol(lm, task, progress)
        write_samples(samples_dir, f"capability.{task.name}", rows)
        scored[task.name] = [row["value"] for row in rows]
    if lm is not None and scored and not lm.engine.packed:
        console().print(f"  {lm.engine.line}")
    return _summary(tasks, scored, skipped, seed, draws)


def _summary(
    tasks: tuple[CapabilityTask, ...],
    scored: dict[str, list[float]],
    skipped: dict[str, str],
    seed: int,
    draws: int,
) -> dict[str, Any]:
    by_name = {task.name: task for task in tasks if task.name in scored}
    values = {name: float(np.mean(scored[name])) for name in by_name}
    resampled = {
        name: resampled_means(scored[name], draws=draws, seed=seed + at)[:, 0, 0]
        for at, name in enumerate(by_name)
    }
    intervals: dict[str, Interval] = {
        name: percentile_interval(resampled[name])
        if task.style.metric == TOKEN_LIKELIHOOD or not set(scored[name]) <= {0.0, 1.0}
        else wilson(sum(scored[name]), len(scored[name]))
        for name, task in by_name.items()
    }
    counted = [name for name, task in by_name.items() if task.style.metric != TOKEN_LIKELIHOOD] or [*by_name]
    mean = float(np.mean([values[name] for name in counted])) if counted else None
    spread = percentile_interval(np.mean([resampled[n] for n in counted], axis=0)) if counted else None
    return {
        "mean": mean,
        "interval": list(spread) if spread else None,
        "tasks": values,
        "intervals": {name: list(interval) for name, interval in intervals.items()},
        "metrics": {name: task.style.metric for name, task in by_name.items()},
        "n": {name: len(scored[name]) for name in by_name},
        "chance": {name: task.chance for name, task in by_name.items()},
        "skipped": skipped,
    }


def _generate(
    policy: Policy, task: CapabilityTask, samples_dir: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Ask each question in the chat format and compare the number that is given."""
    sums = "family" in task.rows[0]
    read = given_number if sums else final_number
    prompts = [
        Prompt(
            id=content_id(task.name, row["question"]),
            messages=({"role": "user", "content": row["question"]},),
            kind="general",
            category=row.get("family"),
            source=task.source,
        )
        for row in task.rows
    ]
    sampling = Sampling(max_new_tokens=ARITHMETIC_TOKENS if sums else SOLUTION_TOKENS)
    stage = f"capability {task.name}"
    completions = answers(
        policy, [p.messages for p in prompts], sampling, samples_dir, stage=stage, progress=progress
    )
    return [
        sample_row(
            "capability",
            prompt,
            completion,
            task=task.name,
            target=row["answer"],
            prediction=(given := read(completion.text)),
            value=float(given == row["answer"]),
        )
        for prompt, row, completion in zip(prompts, task.rows, completions, strict=True)
    ]


def _lm(policy: Policy, samples_dir: Path) -> Any:
    if policy.model is None:
        return None
    with quiet():
        # lm-eval pulls in datasets and more: seconds that a command without capability need not pay.
        from safepref.evaluation.likelihood import PolicyLM

    log = ResumeLog(samples_dir / RESUME / "likelihoods.jsonl")
    return PolicyLM(policy.model, policy.tokenizer, policy_id=policy.id, log=log)


def _by_protocol(lm: Any, task: CapabilityTask, progress: Progress) -> list[dict[str, Any]]:
    """Run a task's requests by lm-eval's protocol: build, answer, filter, process each document."""
    hub = task.style.kind == "lm_eval"
    with quiet():
        built = loaded_task(task.source) if hub else lm_eval_task(task)
        if hub:  # the few-shot examples are drawn with lm-eval's own seed, anew for each model
            built.set_fewshot_seed(FEWSHOT_SEED)
        chosen = [row["doc"] for row in task.rows] if hub else None
        built.build_all_requests(rank=0, world_size=1, samples=chosen)
    requests = [request for request in built.instances for _ in range(request.repeats or 1)]
    stage, total, done = f"capability {task.name}", len(requests), 0

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress(stage, done, total)

    progress(stage, 0, total)
    lm.on_done = count
    for kind in dict.fromkeys(request.request_type for request in requests):
        mine = [request for request in requests if request.request_type == kind]
        for request, answer in zip(mine, getattr(lm, kind)(mine, disable_tqdm=True), strict=True):
            request.resps.append(answer)
    built.apply_filters()
    by_row: dict[int, list[Any]] = {}
    for request in built.instances:
        by_row.setdefault(request.doc_id, []).append(request)
    rows = []
    for at, row in enumerate(task.rows):
        ordered = sorted(by_row[at], key=lambda request: request.idx)
        results = [request.filtered_resps[_filter(request)] for request in ordered]
        score = _row_score if task.style.kind in LIKELIHOOD_KINDS else _document_score
        rows.append(score(lm, built, task, row, ordered, results))
    return rows


def _row_score(
    lm: Any,
    built: Any,
    task: CapabilityTask,
    row: Row,
    requests: list[Any],
    results: list[tuple[float, bool]],
) -> dict[str, Any]:
    logprobs = [logprob for logprob, _ in results]
    sample: dict[str, Any] = {
        "suite": "capability",
        "task": task.name,
        "id": content_id(task.name, row["question"], *map(str, row.get("choices", ()))),
        "question": row["question"],
        "target": row["answer"],
        "logprobs": logprobs,
    }
    if task.style.kind == "solution":
        tokens = lm.continuation_length(*requests[0].args)
        # The geometric mean probability of the solution's tokens: nats a token, put into 0..1.
        return {**sample, "tokens": tokens, "value": math.exp(logprobs[0] / tokens)}
    metrics = built.process_results(built.task_docs[requests[0].doc_id], results)
    lengths = [len(choice) if task.style.metric == "acc_norm" else 1 for choice in row["choices"]]
    prediction = int(np.argmax(np.array(logprobs) / np.array(lengths, dtype=float)))
    return {
        **sample,
        "choices": row["choices"],
        "chance": chance(row),
        "prediction": prediction,
        "value": float(metrics[task.style.metric]),
        "metrics": {name: float(value) for name, value in metrics.items()},
    }


def _document_score(
    lm: Any, built: Any, task: CapabilityTask, row: Row, requests: list[Any], results: list[Any]
) -> dict[str, Any]:
    """A document of a generated task, or of one that lm-eval loaded: scored by the task's own code."""
    metrics = built.process_results(requests[0].doc, results)
    sample: dict[str, Any] = {
        "suite": "capability",
        "task": task.name,
        "id": content_id(task.name, str(row.get("doc", "")), row["question"]),
        "question": row["question"],
        "target": row["answer"],
        "value": float(metrics[task.style.metric]),
        "metrics": {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)},
    }
    if "choices" in row:
        sample["chance"] = chance(row)
    if requests[0].request_type == "generate_until":
        return {**sample, "response": requests[0].resps[0], "prediction": str(results[0])}
    return {**sample, "logprobs": [float(result[0]) for result in results]}


def _filter(request: Any) -> str:
    """The filter whose results count: lm-eval's plain one, or the one that finds a number anywhere."""
    names = list(request.filtered_resps)
    return next((name for name in ("none", "flexible-extract") if name in names), names[0])
