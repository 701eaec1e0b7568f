"""A stand-in for devices that are not here."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class NoDoubles(TorchFunctionMode):
    """As on MPS, which has no float64: only what `.cpu()` gave may be widened to it."""

    def __init__(self) -> None:
        super().__init__()
        self.host: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            self.host.append(func(*args, **(kwargs or {})).clone())
            return self.host[-1]
        if func is torch.Tensor.double and not any(args[0] is tensor for tensor in self.host):
            raise TypeError("cannot convert a device tensor to float64, which this device does not have")
        return func(*args, **(kwargs or {}))
