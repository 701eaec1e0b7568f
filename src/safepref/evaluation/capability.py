"""General ability: benchmark rows scored through lm-eval's own task code, and generated arithmetic."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from safepref.data.records import Prompt, content_id
from safepref.evaluation.arithmetic import given_number
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
from safepref.evaluation.tasks import CapabilityTask, Row, final_number, gap_parts
from safepref.generation.base import Sampling
from safepref.progress import console
from safepref.statistics import DRAWS, Interval, percentile_interval, resampled_means, wilson

TOKEN_LIKELIHOOD = "token_likelihood"
ARITHMETIC_TOKENS = 32
SOLUTION_TOKENS = 256
"""Room for an answer: a sum is a line, a GSM8K solution a paragraph."""


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
            rows = _likelihood(lm, task, progress)
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
        if task.style.metric == TOKEN_LIKELIHOOD
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
    with _quiet():
        # lm-eval pulls in datasets and more: seconds that a command without capability need not pay.
        from safepref.evaluation.likelihood import PolicyLM

    log = ResumeLog(samples_dir / RESUME / "likelihoods.jsonl")
    return PolicyLM(policy.model, policy.tokenizer, policy_id=policy.id, log=log)


def _likelihood(lm: Any, task: CapabilityTask, progress: Progress) -> list[dict[str, Any]]:
    """Run a task's requests by lm-eval's protocol: build, answer, filter, process each document."""
    with _quiet():
        built = lm_eval_task(task)
        built.build_all_requests(rank=0, world_size=1)
    requests = built.instances
    stage, total, done = f"capability {task.name}", len(requests), 0

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress(stage, done, total)

    progress(stage, 0, total)
    lm.on_done = count
    for request, answer in zip(requests, lm.loglikelihood(requests, disable_tqdm=True), strict=True):
        request.resps.append(answer)
    built.apply_filters()
    by_row: dict[int, list[Any]] = {}
    for request in requests:
        by_row.setdefault(request.doc_id, []).append(request)
    rows = []
    for at, row in enumerate(task.rows):
        mine = sorted(by_row[at], key=lambda request: request.idx)
        results = [request.filtered_resps["none"] for request in mine]
        rows.append(_row_score(lm, built, task, row, mine, results))
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
        "prediction": prediction,
        "value": float(metrics[task.style.metric]),
        "metrics": {name: float(value) for name, value in metrics.items()},
    }


def lm_eval_task(task: CapabilityTask) -> Any:
    """The rows as an `lm_eval.api.task.ConfigurableTask`, which lm-eval's own evaluator runs too.

    Prompts and metrics are those of the lm-eval tasks that the style names; questions are never read as
    templates, so braces in a row stay text.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    kind = task.style.kind
    test = Dataset.from_list([_document(task, row) for row in task.rows])
    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in (("perplexity",) if kind == "solution" else ("acc", "acc_norm"))
    ]
    config: dict[str, Any] = {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": test},
        "test_split": "test",
        "output_type": "loglikelihood" if kind == "solution" else "multiple_choice",
        "doc_to_text": lambda doc: doc["answer"] if kind == "gap" else doc["text"],
        "doc_to_target": lambda doc: doc["target"],
        "num_fewshot": 0,
        "metric_list": metrics,
    }
    if kind != "solution":
        config["doc_to_choice"] = lambda doc: doc["options"]
    return ConfigurableTask(config=config)


def _document(task: CapabilityTask, row: Row) -> dict[str, Any]:
    """What lm-eval's callables read: text, target, and for choices the options."""
    style = task.style
    if style.kind == "solution":
        # GSM8K's calculator marks are not text that a model would write; of a "loglikelihood" task lm-eval
        # takes the target as it is, so the space that separates it is put here.
        solution = " " + _without_marks(row["answer"])
        return {"text": style.template.replace("{question}", row["question"]), "target": solution}
    if style.kind == "gap":
        contexts, tail = gap_parts(row)
        return {"options": contexts, "target": tail, "answer": row["answer"]}
    question = row["question"].strip()
    if style.kind == "letters":
        letters = [chr(ord("A") + at) for at in range(len(row["choices"]))]
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, row["choices"], strict=True))
        # Only commonsense_qa among lm-eval's lettered tasks begins with "Question:".
        opening = f"Question: {question}" if task.name.lower().startswith("commonsense") else question
        return {"text": f"{opening}\n{listed}\nAnswer:", "options": letters, "target": row["answer"]}
    text = style.template.replace("{question}", question)
    return {"text": text, "options": row["choices"], "target": row["answer"]}


def _without_marks(solution: str) -> str:
    while "<<" in solution and ">>" in solution[solution.index("<<") :]:
        head, _, rest = solution.partition("<<")
        solution = head + rest.partition(">>")[2]
    return solution


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back lm-eval's own bars and notes: the pipeline shows one bar for each stage."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
