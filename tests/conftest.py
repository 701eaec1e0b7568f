"""What all tests share: the real data folder, and skips that fail where everything must be present."""

from __future__ import annotations

import gc
import os
from pathlib import Path

# Small models gain nothing from threads, and two test workers must not fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

HARDWARE = ("CUDA", "MPS", "bfloat16", "GPU")
"""A skip whose reason names one of these is about missing hardware and is allowed everywhere."""


def pytest_collection_finish() -> None:
    """What the test files import is no garbage, and no search for any need go through it."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """With SAFEPREF_CI set, a skip that is not about hardware is a failure."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):  # type: ignore[no-untyped-def]
    """The same for a file that skips itself as a whole while it is imported."""
    return _no_skip((yield))


def _no_skip(report):  # type: ignore[no-untyped-def]
    if report.skipped and os.environ.get("SAFEPREF_CI") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in HARDWARE):
            report.outcome = "failed"
            report.longrepr = f"skipped where everything must be present: {reason}"
    return report
