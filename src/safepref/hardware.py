"""What the machine offers, and the process settings that make it fast.

`tune_process` is called by the command line before torch is loaded, and by its workers, which inherit what
has to be set before that; `import safepref` never touches the process. What needs torch imports it itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from safepref.errors import InputError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune_process() -> None:
    """Allocator and OpenMP settings for this process; a no-op where they do not apply.

    Large temporaries otherwise come from fresh pages at every step: on glibc, keeping freed memory mapped
    more than halves the time of bandwidth-bound steps. Passive OpenMP waiting helps when other work shares
    the cores; it has to be set before the OpenMP runtime starts.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if sys.platform.startswith("linux"):
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        except (OSError, AttributeError):
            pass  # musl and others: the default allocator stays


def release_memory() -> None:
    """Give free pages back to the system between pieces of work.

    The other side of `tune_process`: kept memory is fast within a stage, but each stage leaves holes in the
    heap that the next one's sizes do not fit.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # musl and others have no such call
            ctypes.CDLL("libc.so.6").malloc_trim(0)


_shares = 1


def take_share(shares: int, all_threads: int) -> None:
    """Let this process plan with one part in `shares` of the machine's memory and of so many threads."""
    import torch

    global _shares
    _shares = shares
    torch.set_num_threads(max(1, all_threads // shares))


def memory_bytes(device: torch.device) -> int:
    """This process's share of a device's memory, free or not; the system's where the device shares it.

    What is free at the moment would be a poor measure: what depends on it could differ from run to run.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total) // _shares


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the first processor; empty where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def cpu_has_bf16() -> bool:
    """Whether bfloat16 matrix products run in hardware (AMX, AVX-512 BF16, or Arm's bf16)."""
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"})


def threads() -> int:
    """Threads for one process: physical cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a want of memory: torch has an error of its own, and a plain one on a CPU."""
    own = type(error).__name__ == "OutOfMemoryError"
    plain = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or own or plain


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then CPU; anything else is taken as torch spells devices.

    Raises:
        InputError: no such device, or one that this machine or this build of torch does not have.
    """
    import torch

    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).split("\n")[0].split(". ")[0][:120]
            raise InputError(
                f"device {wanted!r} cannot be used here ({reason}); give auto, cpu, cuda, cuda:1 or mps"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float32.

    Raises:
        InputError: no such dtype.
    """
    import torch

    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted != "auto":
        if wanted not in names:
            raise InputError(f"dtype {wanted!r}: give auto, {', '.join(names)}")
        return names[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as the manifest records it."""

    system: str
    processor: str
    threads: int
    memory_gib: float
    device: str
    accelerator: str | None
    bf16: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def describe(device: torch.device) -> Hardware:
    """The machine this runs on."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), name)
    except OSError:
        pass
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        processor=name,
        threads=threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        device=device.type,
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        bf16=cpu_has_bf16() if device.type == "cpu" else device.type == "cuda",
    )
