"""How much ``fedsense analyse`` measures, and how finely."""

from __future__ import annotations

from dataclasses import dataclass

from fedsense_core.errors import ConfigError


@dataclass(frozen=True)
class AnalysisOptions:
    """How much is measured, and how finely."""

    batches: int = 1
    """Batches of each client, of the run's own batch size."""
    radii: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Radii of the SAM sharpness, relative to ‖w‖ unless ``absolute``. On the sample the first is
    about the usual distance of SAM, 0.05, and still in proportion to the rise; at the last the rise
    has bent."""
    absolute: bool = False
    """Whether ``radii`` are distances."""
    ascents: int = 1
    """Ascent steps at each radius; 1 is SAM's own."""
    noise: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Sizes σ of random noise, relative to the norm of each tensor."""
    draws: int = 3
    """Pairs of noise at each size."""
    points: int = 7
    """Points on the line from the global model to each client's, both ends included."""
    hessian_steps: int = 16
    """Most products with the Hessian, the dearest part of all."""
    tolerance: float = 0.1
    """Residual at which an eigenvalue is good enough, relative to its size."""
    seed: int = 0
    """Of batches, views and noise. Not the run's: runs of different seeds are compared on the same
    loss."""
    device: str = "auto"
    """``auto`` is CUDA where there is one."""

    def __post_init__(self) -> None:
        least = {"batches": 1, "ascents": 1, "draws": 2, "points": 3, "hessian_steps": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name} = {getattr(self, name)}: give {smallest} or more")
        for name in ("radii", "noise"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: give numbers above 0")
