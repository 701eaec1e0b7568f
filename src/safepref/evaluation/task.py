"""A task other than safety: its prompts answered, judged good or bad, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safepref.evaluation.judged import Row, agreement, corrected, judge_rows
from safepref.evaluation.samples import Policy, Progress, answers, silent, write_samples
from safepref.evaluation.suites import EvaluationSuite, Judges, TaskSuite
from safepref.judges.base import Verdict
from safepref.statistics import DRAWS, JudgeError, proportion, resampled_means

OUTCOMES = (Verdict.GOOD, Verdict.BAD, Verdict.UNSCORED)


def run_task(
    policy: Policy,
    suite: EvaluationSuite,
    task: TaskSuite,
    judges: Judges,
    samples_dir: Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Generate, judge, write `task.jsonl`, and score; see `score_task` for the keys."""
    completions = answers(
        policy,
        [prompt.messages for prompt in task.prompts],
        suite.answer,
        samples_dir,
        stage=f"{task.name} answers",
        progress=progress,
    )
    rows = judge_rows(task.prompts, completions, judges, progress, suite="task")
    write_samples(samples_dir, "task", rows)
    return score_task(
        rows,
        name=task.name,
        measure=task.measure,
        more=task.more,
        error=judges.main_error,
        seed=suite.seed,
        draws=suite.draws,
    )


def score_task(
    rows: Sequence[Row],
    *,
    name: str,
    measure: str,
    more: Callable[..., Mapping[str, Any]] | None = None,
    error: JudgeError | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """The task part of SCORES from sample rows. Rates are shares of all answers: good + bad + unscored = 1.

    Args:
        rows: sample rows of the suite `task`.
        name: the task's.
        measure: what its main rate is called.
        more: gives further scores of the rows.
        error: the main judge's, for the corrected rate.
        seed: of the bootstrap.
        draws: its resamples.

    Returns:
        `name`, `measure`, `rate` (good answers) with its `interval`, `bad`, `unscored`, `by_category` with
        `intervals`, `corrected` with `corrected_why`, `refused`, `truncated`, `degenerate`, `judge`, `second`
        (the other judge's scores), `agreement`, `n`, and what `more` gives.
    """
    verdicts = [row["verdict"] for row in rows]
    judge, clusters = rows[0]["judge"], [row["base_id"] for row in rows]
    one_hot = np.array([[verdict == kind.value for kind in OUTCOMES] for verdict in verdicts], dtype=float)
    good, bad, unscored = one_hot.mean(axis=0).tolist()
    sampling: dict[str, Any] = {"draws": draws, "seed": seed}
    drawn = resampled_means(one_hot, clusters=clusters, **sampling)[:, 0]
    by_category: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        if row["category"] is not None:
            by_category.setdefault(row["category"], []).append(at)
    parts = {
        category: proportion(one_hot[which, 0], clusters=[clusters[at] for at in which], **sampling)
        for category, which in sorted(by_category.items())
    }
    others = [other for other in rows[0]["verdicts"] if other != judge]
    second, agreed = None, None
    if others:
        given = [row["verdicts"][others[0]]["verdict"] for row in rows]
        estimate = proportion([float(v == Verdict.GOOD.value) for v in given], clusters=clusters, **sampling)
        second = {"judge": others[0], "rate": estimate.value, "interval": list(estimate.interval)}
        agreed = agreement(verdicts, given)
    return {
        "name": name,
        "measure": measure,
        "rate": good,
        "interval": list(proportion(one_hot[:, 0], clusters=clusters, **sampling).interval),
        "bad": bad,
        "unscored": unscored,
        "by_category": {category: part.value for category, part in parts.items()},
        "intervals": {category: list(part.interval) for category, part in parts.items()},
        **corrected(bad, unscored, drawn, error, len(set(clusters)), seed),
        **(more(rows, **sampling) if more is not None else {}),
        "refused": float(np.mean([row["refusal"] >= 0.5 for row in rows])),
        "truncated": float(np.mean([row["truncated"] for row in rows])),
        "degenerate": float(np.mean([bool(row["degenerate"]) for row in rows])),
        "judge": judge,
        "second": second,
        "agreement": agreed,
        "n": len(rows),
    }
