"""Where to compute, from what a user says."""

from __future__ import annotations

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
