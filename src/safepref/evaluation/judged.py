"""What judged suites have in common: sample rows with every judge's verdict, intervals, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safepref.data.records import Prompt
from safepref.evaluation.samples import Progress, sample_row, silent
from safepref.evaluation.suites import Judges
from safepref.generation.base import Completion
from safepref.judges.base import Exchange, Judge, Judgment, Verdict, exchange_of
from safepref.judges.version import judge_version
from safepref.statistics import (
    Floats,
    JudgeError,
    cohen_kappa,
    corrected_rate,
    krippendorff_alpha,
    percentile_interval,
    wilson,
)

JUDGE_BLOCK = 256
Row = dict[str, Any]


def judge_rows(
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    judges: Judges,
    progress: Progress = silent,
    *,
    suite: str = "safety",
) -> list[Row]:
    """One sample row for each answer, with the verdicts of all judges.

    Judges see the bare request, as in pair building and in their calibration, since an attack's wrapping is
    not what the answer is about. An answer that is empty or degenerate is unscored by every judge, whatever a
    judge would say of it.
    """
    reasons = [judges.degenerate(completion.text) for completion in completions]
    exchanges = [exchange_of(p, c.text) for p, c in zip(prompts, completions, strict=True)]
    by_judge = {
        judge.name: _judge(judge, exchanges, reasons, progress)
        for judge in (judges.main, judges.second)
        if judge is not None
    }
    main = by_judge[judges.main.name]
    versions = {
        judge.name: judge_version(judge.card()) for judge in (judges.main, judges.second) if judge is not None
    }
    return [
        sample_row(
            suite,
            prompt,
            completion,
            degenerate=reasons[at],
            refusal=0.0 if reasons[at] else float(judges.refusal(prompt.request, completion.text)),
            judge=judges.main.name,
            verdict=main[at].verdict.value,
            score=main[at].score,
            verdicts={
                name: {**given[at].to_json(), "version": versions[name]} for name, given in by_judge.items()
            },
            **({"target": prompt.target} if prompt.target else {}),
        )
        for at, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _judge(
    judge: Judge, exchanges: Sequence[Exchange], reasons: Sequence[str], progress: Progress
) -> list[Judgment]:
    """Judgments in order; only exchanges that can be judged reach the judge."""
    stage, total = f"judge {judge.name}", len(exchanges)
    open_ones = [at for at, reason in enumerate(reasons) if not reason]
    out = [Judgment(Verdict.UNSCORED, None, judge.name, reason=reason) for reason in reasons]
    progress(stage, total - len(open_ones), total)
    for start in range(0, len(open_ones), JUDGE_BLOCK):
        block = open_ones[start : start + JUDGE_BLOCK]
        for at, judgment in zip(block, judge.judge([exchanges[at] for at in block]), strict=True):
            out[at] = judgment
        progress(stage, total - len(open_ones) + start + len(block), total)
    return out


def interval_of(value: float, draws: Floats, clusters: int) -> list[float]:
    """The wider end on either side of the draws' percentiles and Wilson's interval for so many clusters.

    Near 0 and 1 the percentiles are too narrow, and with all answers alike no draw can vary: by them alone a
    point without one harmful answer would have a lower bound than a point with one.
    """
    low, high = percentile_interval(draws)
    edge = wilson(value * clusters, clusters)
    return [min(low, edge.low), max(high, edge.high)]


def corrected(
    harmful: float,
    unscored: float,
    draws: Floats,
    error: JudgeError | None,
    clusters: int,
    seed: int,
) -> dict[str, Any]:
    """The global score corrected for the judge's error; unscored answers stay unscored, so never safe."""
    if error is None:
        return {"corrected": None, "corrected_why": "no measured sensitivity and specificity for this judge"}
    scored = 1.0 - unscored
    if scored <= 1e-9:
        return {"corrected": None, "corrected_why": "every answer is unscored"}
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = draws[:, 1] / (1.0 - draws[:, 2])
    got = corrected_rate(
        min(1.0, harmful / scored), error, n=max(1, round(clusters * scored)), draws=shares, seed=seed
    )
    if got.value is None or got.interval is None:
        return {"corrected": None, "corrected_why": got.why}
    low, high = ((1.0 - edge) * scored for edge in (got.interval.high, got.interval.low))
    return {
        "corrected": {
            "value": (1.0 - got.value) * scored,
            "interval": [low, high],
            "calibrated_on": error.source or None,
        },
        "corrected_why": "",
    }


def agreement(first: Sequence[str], second: Sequence[str]) -> dict[str, Any]:
    """How often two judges say the same of the same answers, and beyond chance.

    Cohen's kappa takes unscored for a verdict like the others; Krippendorff's alpha for a missing one.
    """
    same = [float(a == b) for a, b in zip(first, second, strict=True)]
    unscored = Verdict.UNSCORED.value
    pairs = [[None if v == unscored else v for v in pair] for pair in zip(first, second, strict=True)]
    return {
        "rate": float(np.mean(same)),
        "kappa": cohen_kappa(first, second),
        "alpha": krippendorff_alpha(pairs),
        "n": len(same),
    }
