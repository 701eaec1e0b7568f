"""Figures on human labels that the project does not ship, measured once and kept in measured.yaml.

They stand on the judges' cards beside what is measured when a judge is fitted, so that a reader of any report
sees how far the judge can be trusted on answers of other models. A test measures them anew where the label
files are at hand.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def _table() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("safepref.judges").joinpath("measured.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def measured(judge: str) -> list[dict[str, Any]]:
    """Calibrations in the contract's JSON, one for each labelled set; none for a judge that is not in it."""
    return [dict(row) for row in _table().get(judge, ())]
