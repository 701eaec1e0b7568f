"""Nats per token of given answers in the chat template: base answers to ordinary requests, worked solutions.

A likelihood moves before any answer turns wrong, so it shows a drift that counted answers cannot; and it does
not show a model that refuses, so it never stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safepref.data.records import Message, content_id
from safepref.data.render import renderer
from safepref.errors import InputError
from safepref.evaluation.row_tasks import without_marks
from safepref.evaluation.samples import RESUME, Policy, Progress, ResumeLog, silent, write_samples
from safepref.evaluation.tasks import CapabilityTask, read_task
from safepref.statistics import DRAWS, Estimate, percentile_interval, resampled_means


@dataclass(frozen=True, slots=True)
class Given:
    """An answer whose likelihood is asked for. Of a `truncated` one, the end of turn is not scored."""

    messages: tuple[Message, ...]
    text: str
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Nats:
    """-log p of an answer's tokens given its request, in nats, and how many tokens these are."""

    nats: float
    tokens: int


def answer_nats(
    policy: Policy,
    given: Sequence[Given],
    samples_dir: Path,
    *,
    system: str | None = None,
    stage: str = "likelihoods",
    progress: Progress = silent,
) -> list[Nats]:
    """The nats of each answer as the model's own chat template writes it behind its request.

    The end of turn is scored too, where the answer was not cut; an answer without any token has 0 nats and 0
    tokens. Finished batches come from the log below `samples_dir`.

    Raises:
        InputError: the policy gives no likelihoods (an API server).
    """
    if policy.model is None:
        raise InputError(f"{stage}: needs log-likelihoods, which {policy.engine.name} does not give")
    from safepref.evaluation.scoring import PairScorer, max_length  # loads torch, which reports do without

    render = renderer(policy.tokenizer, system)
    pairs = []
    for item in given:
        rendered = render.completion(item.messages, item.text)
        ids = tuple(rendered.completion_ids)
        if item.truncated and ids and ids[-1] == render.end_id:
            ids = ids[:-1]
        pairs.append((tuple(rendered.prompt_ids), ids))
    asked = [pair for pair in pairs if pair[1]]
    done, total = 0, len(asked)

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress(stage, done, total)

    progress(stage, 0, total)
    model = policy.model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    scorer = PairScorer(
        model,
        max_length(inner.config, policy.tokenizer),
        policy_id=policy.id,
        log=ResumeLog(samples_dir / RESUME / "likelihoods.jsonl"),
        on_done=count,
    )
    scored = dict(zip(asked, scorer.scores(asked), strict=True))
    return [Nats(-scored[pair][0], len(pair[1])) if pair[1] else Nats(0.0, 0) for pair in pairs]


def per_token(nats: Sequence[float], tokens: Sequence[int], *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Sum of nats over sum of tokens: every token counts the same.

    Args:
        nats: `(N,)` of each answer; differences of two policies on the same answers give a paired figure.
        tokens: `(N,)`, above 0.
        draws, seed: of the bootstrap, in which whole answers are drawn.
    """
    table = np.stack([np.asarray(nats, float), np.asarray(tokens, float)], axis=1)
    drawn = resampled_means(table, draws=draws, seed=seed)[:, 0, :]
    value = float(table[:, 0].sum() / table[:, 1].sum())
    return Estimate(value, percentile_interval(drawn[:, 0] / drawn[:, 1]), len(table))


def solution_task(path: Path | str, *, limit: int | None = None, seed: int = 0) -> CapabilityTask:
    """A file of GSM8K's rows, question and worked answer, for `run_nats`, without the calculator's marks.

    Raises:
        InputError: as `read_task`; rows with choices.
    """
    task = read_task(path, limit=limit, seed=seed, style="solution")
    rows = tuple({**row, "answer": without_marks(row["answer"])} for row in task.rows)
    return CapabilityTask(task.name, task.style, rows, task.source)


def run_nats(
    policy: Policy,
    tasks: Sequence[CapabilityTask],
    samples_dir: Path,
    *,
    system: str | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score every task's worked answers and write `nats.<task>.jsonl`.

    Returns:
        `nats`: by task, nats per token of the answers, each asked for in the chat template; lower is better.
        `nats_intervals` and `nats_n` beside it.
    """
    values: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for task in tasks:
        given = [Given(({"role": "user", "content": row["question"]},), row["answer"]) for row in task.rows]
        found = answer_nats(
            policy, given, samples_dir, system=system, stage=f"nats {task.name}", progress=progress
        )
        rows = [
            {
                "suite": "nats",
                "task": task.name,
                "id": content_id(task.name, row["question"]),
                "source": task.source,
                "question": row["question"],
                "target": row["answer"],
                "nats": item.nats,
                "tokens": item.tokens,
            }
            for row, item in zip(task.rows, found, strict=True)
        ]
        write_samples(samples_dir, f"nats.{task.name}", rows)
        estimate = per_token(
            [item.nats for item in found], [item.tokens for item in found], draws=draws, seed=seed
        )
        values[task.name], intervals[task.name] = estimate.value, list(estimate.interval)
        counts[task.name] = estimate.n
    return {"nats": values, "nats_intervals": intervals, "nats_n": counts}
