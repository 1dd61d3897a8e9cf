"""Where to compute, from what a user says, and what it takes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedsense_core.errors import ConfigError


def chosen_device(name: str = "auto") -> torch.device:
    """Return the device that ``name`` means; ``auto`` is CUDA where there is one, else the CPU.

    Raises ConfigError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}): give cpu, cuda or auto") from None


@contextmanager
def full_float32(wanted: bool = True) -> Iterator[None]:
    """Keep torch from rounding what convolutions on CUDA read to the 10 bits of TF32, its default,
    where ``wanted``."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and not wanted
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def peak_memory() -> dict[str, int]:
    """Return the most bytes that this process has held so far: resident, and of the GPU where there
    is one."""
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.max_memory_allocated()
    return found
