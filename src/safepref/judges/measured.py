"""Figures on human labels that were measured before: by the project, and by the user.

The project's own stand in measured.yaml and on the judges' cards, beside what is measured when a judge is
fitted, so that a reader of any report sees how far the judge can be trusted on answers of other models. A
test measures them anew where the label files are at hand. A user's are a file of `safepref judge calibrate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from safepref.errors import InputError
from safepref.judges.base import Judge
from safepref.judges.version import version_differs
from safepref.statistics import JudgeError
from safepref.store import read_json

COUNTS = {"hits", "positives", "rejections", "negatives"}
"""What a calibration counts on people's labels."""


@cache
def _table() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("safepref.judges").joinpath("measured.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def measured(judge: str) -> list[dict[str, Any]]:
    """Calibrations in the contract's JSON, one for each labelled set; none for a judge that is not in it."""
    return [dict(row) for row in _table().get(judge, ())]


def read_calibration(path: str | Path) -> dict[str, Any]:
    """A file that `safepref judge calibrate --json` wrote.

    Raises:
        InputError: no such file, or one without what a correction needs.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; write it with `safepref judge calibrate --json {file}`")
    found = read_json(file)
    hits = found.get("hits") if isinstance(found, dict) else None
    if not (isinstance(hits, dict) and set(hits) == COUNTS and all(type(n) is int for n in hits.values())):
        raise InputError(
            f"{file}: no calibration (its `hits` are {hits!r}); write it with `safepref judge calibrate`"
        )
    worth = found.get("effective")
    if worth is not None and not (
        isinstance(worth, dict) and all(type(n) in (int, float, type(None)) for n in worth.values())
    ):
        raise InputError(f"{file}: `effective` is {worth!r}; write it with `safepref judge calibrate`")
    try:
        error_of(hits, found)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return dict(found)


def error_of(hits: Mapping[str, int], calibration: Mapping[str, Any]) -> JudgeError:
    """A judge's error for the corrected rate, from what it was counted on.

    A calibration that does not say how many independent rows its labels are worth takes each for one.

    Raises:
        InputError: counts that fit no rate.
    """
    worth = calibration.get("effective") or {}
    return JudgeError(
        **hits,
        source=str(calibration.get("data") or ""),
        effective_positives=worth.get("positives"),
        effective_negatives=worth.get("negatives"),
    )


def calibration_of(judge: Judge, path: str | Path) -> dict[str, Any]:
    """The calibration in a file, if it is this judge's.

    Raises:
        InputError: another judge's, or another version's of it: its errors say nothing about this one.
    """
    found = read_calibration(path)
    if found.get("judge") != judge.name:
        raise InputError(
            f"judges.calibration {path}: measured judge {found.get('judge')!r}, but judges.report is "
            f"{judge.name!r}; calibrate that one"
        )
    then, now = found.get("card") or {}, judge.card()
    key = version_differs(then, now)
    if key:
        changed = (
            f"had other {key} when it was measured"
            if key in ("vote", "members")
            else f"had {key} {then.get(key)!r} when it was measured and has {now.get(key)!r} now"
        )
        raise InputError(f"judges.calibration {path}: judge {judge.name} {changed}; calibrate it anew")
    return found
