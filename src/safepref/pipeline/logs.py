"""The Inspect log of each evaluated point of a run, and of each model of `safepref evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safepref.evaluation.inspect_log import Point, write_log
from safepref.recipe import Recipe

INSPECT = "inspect"


def log_point(
    out: Path,
    recipe: Recipe,
    started: str,
    label: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
) -> Path:
    """Write the log of a run's point below logs/inspect. Named by the run's start, so it is written once.

    Args:
        out: the run folder.
        recipe: the run's.
        started: as the manifest has it.
        label: `point`, `split`, `method` and `strength` of the point.
        rows: its samples.
        scores: its SCORES.
    """
    point = Point(
        task=f"{label['split']}.{label['point']}",
        model=recipe.model.id,
        model_args=dict(label),
        max_tokens=recipe.evaluation.answer_tokens,
        created=datetime.strptime(started, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC),
    )
    return write_log(out / "logs" / INSPECT, point, rows, scores)


def log_model(
    json_path: Path, model: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], scores: Any
) -> Path:
    """Write the log of one model of `safepref evaluate` into the folder `inspect` beside its result."""
    point = Point(
        task=json_path.stem,
        model=model,
        model_args={key: value for key, value in settings.items() if key != "answer_tokens"},
        max_tokens=settings["answer_tokens"],
        created=datetime.now(UTC),
    )
    return write_log(json_path.parent / INSPECT, point, rows, scores)
