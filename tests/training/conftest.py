"""What the training tests share."""

from __future__ import annotations

import gc

import pytest
import torch


@pytest.fixture(autouse=True)
def quick() -> None:
    """One thread for tiny matrices, and no search through all imported modules at each end of training."""
    torch.set_num_threads(1)
    gc.freeze()
