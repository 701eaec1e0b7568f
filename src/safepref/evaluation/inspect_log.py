"""Evaluations as Inspect logs, for `inspect view` and for whoever reads results with Inspect's own tools.

Written from the sample rows, in the JSON form of Inspect's log schema, version 2 (inspect.aisi.org.uk,
"Eval Logs"): nothing of Inspect is needed here. Sample ids are `suite/id`, unique in a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from safepref import __version__
from safepref.data.records import content_id, without_surrogates
from safepref.store import write_text

VERSION = 2
UNSCORED = "unscored"
Row = Mapping[str, Any]
Value = str | float


@dataclass(frozen=True, slots=True)
class Point:
    """What was evaluated, as the log names it: task and model, and settings that a reader may need."""

    task: str
    model: str
    model_args: Mapping[str, Any]
    max_tokens: int
    created: datetime


@dataclass(frozen=True, slots=True)
class _Scorer:
    """How the rows of a suite become scores.

    `value` gives UNSCORED where nothing could be said; `rates` are the metrics, each the mean of a number of
    each row, or of the rows for which it is not None.
    """

    value: Callable[[Row], Value]
    explain: Callable[[Row], str]
    rates: Mapping[str, Callable[[Row], float | None]]
    keep: tuple[str, ...]


def _verdict(row: Row) -> str:
    return str(row["verdict"])


def _why_verdict(row: Row) -> str:
    given = (row.get("verdicts") or {}).get(row["judge"]) or {}
    reason = given.get("reason") or ""
    what = "harmful" if row["suite"] == "safety" else "bad"
    score = "" if row["score"] is None else f"P({what}) = {row['score']:.3f}"
    return f"{row['verdict']} by judge {row['judge']}" + "".join(
        f"; {part}" for part in (score, reason) if part
    )


def _answered(row: Row) -> str:
    if row.get("unscored"):
        return UNSCORED
    return "degenerate" if row["degenerate"] else "refused" if row["refused"] else "answered"


def _why_answered(row: Row) -> str:
    known = row["refusal"] is not None
    return f"{_answered(row)}; " + (f"P(refused) = {row['refusal']:.3f}" if known else str(row["unscored"]))


def _why_toxic(row: Row) -> str:
    if row["toxicity"] is None:
        return f"{row.get('unscored') or 'no words'}: unscored"
    return f"P(toxic) = {row['toxicity']:.3f}"


def _toxicity(row: Row) -> Value:
    return UNSCORED if row["toxicity"] is None else float(row["toxicity"])


_ANSWERS: Mapping[str, Callable[[Row], float | None]] = {
    "not_answered": lambda row: float(not row["answered"]),
    "refused": lambda row: float(row["refused"]),
    "degenerate": lambda row: float(bool(row["degenerate"])),
}
_SCORERS: Mapping[str, _Scorer] = {
    "safety": _Scorer(
        _verdict,
        _why_verdict,
        {
            "safe": lambda row: float(row["verdict"] == "harmless"),
            "harmful": lambda row: float(row["verdict"] == "harmful"),
            "unscored": lambda row: float(row["verdict"] == UNSCORED),
        },
        ("judge", "score", "verdicts", "refusal", "degenerate"),
    ),
    "task": _Scorer(
        _verdict,
        _why_verdict,
        {
            "good": lambda row: float(row["verdict"] == "good"),
            "bad": lambda row: float(row["verdict"] == "bad"),
            "unscored": lambda row: float(row["verdict"] == UNSCORED),
        },
        ("judge", "score", "verdicts", "refusal", "degenerate"),
    ),
    "over_refusal": _Scorer(
        _answered,
        _why_answered,
        _ANSWERS,
        ("judge", "version", "refusal", "degenerate"),
    ),
    "ordinary": _Scorer(
        _answered,
        _why_answered,
        _ANSWERS,
        ("judge", "version", "refusal", "degenerate", "base_response", "base_nats", "base_tokens", "nats"),
    ),
    "chat": _Scorer(
        lambda row: float(row["value"]),
        lambda row: f"target {row['target']}" + ("; refused" if row["refused"] else ""),
        {
            "mean": lambda row: row["value"],
            "refused": lambda row: float(row["refused"]),
            "unanswered": lambda row: float(not row["refused"] and not row["answered"]),
        },
        ("prediction", "refused", "answered"),
    ),
    "nats": _Scorer(
        lambda row: float(row["nats"] / row["tokens"]),
        lambda row: f"{row['nats']:.3f} nats for the {row['tokens']} tokens of the given answer",
        {"nats_per_token": lambda row: row["nats"] / row["tokens"]},
        ("nats", "tokens"),
    ),
    "toxicity": _Scorer(
        _toxicity,
        _why_toxic,
        {
            "mean": lambda row: row["toxicity"],
            "unscored": lambda row: float(row["toxicity"] is None),
        },
        ("mode", "judge", "version"),
    ),
    "capability": _Scorer(
        lambda row: float(row["value"]),
        lambda row: (
            f"target {row['target']}" + (f", given {row['prediction']}" if "prediction" in row else "")
        ),
        {"mean": lambda row: row["value"]},
        ("logprobs", "prediction", "tokens", "metrics"),
    ),
}
_METADATA = ("suite", "task", "category", "attack", "template", "split", "source", "base_id", "truncated")


def write_log(folder: Path, point: Point, rows: Sequence[Row], scores: Mapping[str, Any]) -> Path:
    """Write one evaluated point as `<time>_<task>_<id>.json`, the name by which `inspect view` finds it.

    Args:
        folder: of the logs.
        point: what was evaluated.
        rows: sample rows of every suite, as `read_samples` gives them.
        scores: the point's SCORES, of which the summary figures are taken.

    Returns:
        The file's path; equal arguments write the same file with the same content.
    """
    task = re.sub(r"[^A-Za-z0-9.@-]+", "-", point.task)
    identity = content_id(point.model, json.dumps(dict(point.model_args), sort_keys=True, default=str), task)
    stamp = point.created.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S+00-00")
    path = folder / f"{stamp}_{task}_{identity}.json"
    log = as_log(point, rows, scores, identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        path, without_surrogates(json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
    )
    return path


def as_log(point: Point, rows: Sequence[Row], scores: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """The log as a plain dictionary: version, status, eval, plan, results, stats and samples."""
    time = point.created.astimezone(UTC).isoformat(timespec="seconds")
    samples = [_sample(row, point) for row in rows]
    seen: dict[str, int] = {}
    for sample in samples:  # a benchmark file may ask a question twice
        seen[sample["id"]] = times = seen.get(sample["id"], 0) + 1
        sample["id"] += f"#{times}" if times > 1 else ""
    by_scorer: dict[str, list[Row]] = {}
    for row in rows:
        by_scorer.setdefault(_scorer_name(row), []).append(row)
    return {
        "version": VERSION,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "created": time,
            "task": point.task,
            "task_id": identity,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {},
            "dataset": {
                "name": ", ".join(sorted({str(row.get("source") or row["suite"]) for row in rows})),
                "samples": len(samples),
                "sample_ids": [sample["id"] for sample in samples],
                "shuffled": False,
            },
            "model": point.model,
            "model_args": dict(point.model_args),
            "config": {"epochs": 1},
            "packages": {"safepref": __version__},
            "scorers": [{"name": name} for name in by_scorer],
        },
        "plan": {
            "name": "safepref",
            "steps": [{"solver": "generate", "params": {}}],
            "config": {"max_tokens": point.max_tokens, "temperature": 0.0},
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [_result(name, mine, scores) for name, mine in by_scorer.items()],
        },
        "stats": {"started_at": time, "completed_at": time, "model_usage": {}},
        "samples": samples,
    }


def _scorer_name(row: Row) -> str:
    """Tasks and modes are scorers of their own: their figures are never pooled."""
    more = row.get("task") or row.get("mode")
    return f"{row['suite']}/{more}" if more else str(row["suite"])


def _sample(row: Row, point: Point) -> dict[str, Any]:
    scorer = _SCORERS[row["suite"]]
    asked = [dict(turn) for turn in row.get("messages") or [{"role": "user", "content": row["question"]}]]
    said = row.get("response")
    answer = {"role": "assistant", "content": said, "source": "generate", "model": point.model}
    stop = "max_tokens" if row.get("truncated") else "stop"
    task = f"{row['task']}/" if "task" in row else ""
    score = {
        "value": scorer.value(row),
        "answer": said if said is not None else str(row.get("prediction", "")),
        "explanation": scorer.explain(row),
        "metadata": {key: row[key] for key in scorer.keep if key in row},
    }
    return {
        "id": f"{row['suite']}/{task}{row['id']}",
        "epoch": 1,
        "input": asked,
        **({"choices": row["choices"]} if "choices" in row else {}),
        "target": str(row.get("target", "")),
        "messages": asked if said is None else [*asked, answer],
        "output": {
            "model": point.model,
            "choices": [] if said is None else [{"message": answer, "stop_reason": stop}],
        },
        "scores": {_scorer_name(row): score},
        "metadata": {key: row[key] for key in _METADATA if row.get(key) is not None},
    }


def _result(name: str, rows: Sequence[Row], scores: Mapping[str, Any]) -> dict[str, Any]:
    """A scorer's figures: means of the rows with their standard errors, and of safety those of SCORES."""
    suite = rows[0]["suite"]
    scorer = _SCORERS[suite]
    unscored = sum(scorer.value(row) == UNSCORED for row in rows)
    metrics: dict[str, float] = {}
    for metric, read in scorer.rates.items():
        known = [(value, row) for row in rows if (value := read(row)) is not None]
        if known:
            values = [value for value, _ in known]
            groups = [str(row.get("base_id") or row["id"]) for _, row in known]
            metrics[metric] = float(np.mean(values))
            error = clustered_stderr(values, groups)
            if error is not None:
                metrics[f"{metric}_stderr"] = error
    part = scores.get(suite) or {}
    if suite == "safety":
        for key in ("global", "plain", "adversarial"):
            if part.get(key) is not None:
                metrics[key] = part[key]
    elif suite == "task":
        metrics[part.get("measure") or "rate"] = part.get("rate", metrics["good"])
        if part.get("macro_f1") is not None:
            metrics["macro_f1"] = part["macro_f1"]
    return {
        "name": name,
        "scorer": name,
        "scored_samples": len(rows) - unscored,
        "unscored_samples": unscored,
        "params": {},
        "metrics": {key: {"name": key, "value": value, "params": {}} for key, value in metrics.items()},
        "metadata": {"scored_samples": len(rows) - unscored, "unscored_samples": unscored},
    }


def clustered_stderr(values: Iterable[float], groups: Sequence[str]) -> float | None:
    """Standard error of a mean whose rows come in groups (variants of one request), each group independent.

    sqrt(sum over groups of (sum of deviations)^2 * G / (G - 1)) / n (Miller, arXiv 2411.00640, equation 4,
    with the factor for few groups that Inspect's own `stderr` takes too); None for one group, which says
    nothing of how much groups differ.
    """
    array = np.asarray(list(values), np.float64)
    names, at = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(at, weights=array - array.mean())
    return float(np.sqrt((sums**2).sum() * len(names) / (len(names) - 1)) / len(array))
