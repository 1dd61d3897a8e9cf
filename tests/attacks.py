"""Synthetic updates of honest clients, and what attackers make of them.

Honest ones are as in runs of the shipped sample: within a round norms differ by a tenth, and an
update has a cosine of 0.01 (one bit) to 0.4 (whole models) to the mean of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

NUMEL = 4096


@dataclass
class Cohort:
    """Clients that train on imagery of several sensors."""

    clients: int = 5
    alike: float = 0.15
    """Share of an update's squared norm that all have in common."""
    sensors: int = 3
    spread: float = 0.1
    """Standard deviation of the logarithm of norms."""
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.sensor_parts = [self.direction() for _ in range(self.sensors)]

    def direction(self) -> Tensor:
        """Return a unit vector (N,)."""
        return torch.nn.functional.normalize(torch.randn(NUMEL, generator=self.generator), dim=0)

    def round(self, norm: float = 1.0) -> list[Tensor]:
        """Return the honest updates of a round."""
        common = self.direction()
        return [self._update(client, common, norm) for client in range(self.clients)]

    def _update(self, client: int, common: Tensor, norm: float) -> Tensor:
        sensor = self.sensor_parts[client % self.sensors]
        own = (1 - 1.3 * self.alike) ** 0.5
        update = self.alike**0.5 * common + (0.3 * self.alike) ** 0.5 * sensor + own * self.direction()
        return norm * update * float((self.spread * torch.randn(1, generator=self.generator)).exp())


Attack = Callable[[list[Tensor], int, float], Tensor]
"""From the honest updates, the number of the round and the norm that would be let in."""


def _towards(direction: Tensor, norm: float) -> Tensor:
    return norm * direction / direction.norm()


def flip(honest: list[Tensor], number: int, most: float) -> Tensor:
    """Push back along what the attacker learned itself, as hard as is let in."""
    return _towards(-honest[0], most)


def flip_mean(honest: list[Tensor], number: int, most: float) -> Tensor:
    """Push back along the mean of all, whom the attacker knows, with an honest norm."""
    return _towards(-torch.stack(honest).mean(0), float(honest[0].norm()))


def scale(honest: list[Tensor], number: int, most: float) -> Tensor:
    return _towards(honest[0], most)


def constant(honest: list[Tensor], number: int, most: float) -> Tensor:
    return torch.full((NUMEL,), most / NUMEL**0.5)


def drip(honest: list[Tensor], number: int, most: float) -> Tensor:
    """A tenth of a constant, under an honest update."""
    return honest[0] + 0.1 * _towards(torch.ones(NUMEL), float(honest[0].norm()))


def ratchet(honest: list[Tensor], number: int, most: float) -> Tensor:
    """Half as much again in each round, to raise the limit."""
    return _towards(-honest[0], min(most, float(honest[0].norm()) * 1.5**number))


def alternate(honest: list[Tensor], number: int, most: float) -> Tensor:
    return flip(honest, number, most) if number % 2 else honest[0]


def little_is_enough(honest: list[Tensor], number: int, most: float) -> Tensor:
    """Mean less one standard deviation of each coordinate (Baruch et al. 2019, arXiv
    1902.06156)."""
    stacked = torch.stack(honest)
    return stacked.mean(0) - stacked.std(0)


def free_rider(honest: list[Tensor], number: int, most: float) -> Tensor:
    return torch.zeros(NUMEL)


def echo(honest: list[Tensor], number: int, most: float) -> Tensor:
    """The mean of the others instead of work of its own."""
    return _towards(torch.stack(honest[1:]).mean(0), float(honest[0].norm()))


def one_tensor(honest: list[Tensor], number: int, most: float) -> Tensor:
    update = torch.zeros(NUMEL)
    update[:64] = 1
    return _towards(update, most)


def one_coordinate(honest: list[Tensor], number: int, most: float) -> Tensor:
    return most * torch.nn.functional.one_hot(torch.tensor(7), NUMEL).float()


DRIVING: dict[str, Attack] = {
    "flip": flip,
    "scale": scale,
    "constant": constant,
    "one-tensor": one_tensor,
    "one-coordinate": one_coordinate,
}
"""Each at the norm limit: what a plain mean would follow."""
