"""One made run folder with its page, shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from run_folder import build_run

from safepref.report import write_report


class Made(NamedTuple):
    """A run folder, its results, and the page."""

    folder: Path
    results: dict[str, Any]
    page: str


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """Three methods, three strengths, several hundred samples."""
    folder = tmp_path_factory.mktemp("run")
    results = build_run(folder)
    return Made(folder, results, write_report(folder).read_text(encoding="utf-8"))
