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
LIMIT = 0.0
"""As a length: the norm that is let in. Any other is in honest norms."""


def _towards(direction: Tensor, norm: float) -> Tensor:
    return norm * direction / direction.norm()


def _long(direction: Tensor, length: float, honest: list[Tensor], most: float) -> Tensor:
    return _towards(direction, length * float(honest[0].norm()) or most)


def flip(length: float = LIMIT) -> Attack:
    """Push back along what the attacker learned itself."""
    return lambda honest, number, most: _long(-honest[0], length, honest, most)


def flip_mean(length: float = 1.0) -> Attack:
    """Push back along the mean of all, whom the attacker knows."""
    return lambda honest, number, most: _long(-torch.stack(honest).mean(0), length, honest, most)


def scale(length: float = LIMIT) -> Attack:
    return lambda honest, number, most: _long(honest[0], length, honest, most)


def constant(length: float = LIMIT, sign: int = 1) -> Attack:
    return lambda honest, number, most: _long(sign * torch.ones(NUMEL), length, honest, most)


def drip(share: float, coordinates: int = NUMEL) -> Attack:
    """A little of a constant in some coordinates, under an honest update."""

    def attack(honest: list[Tensor], number: int, most: float) -> Tensor:
        drop = torch.zeros(NUMEL)
        drop[:coordinates] = 1
        return honest[0] + _long(drop, share, honest, most)

    return attack


def ratchet(growth: float) -> Attack:
    """So much longer in each round, to raise the limit."""
    return lambda honest, number, most: _towards(-honest[0], min(most, float(honest[0].norm()) * growth**number))


def alternate(attack: Attack, every: int = 2) -> Attack:
    """Attack in each so many-th round, beginning with the first, and be honest between."""
    return lambda honest, number, most: attack(honest, number, most) if number % every == 1 else honest[0]


def little_is_enough(deviations: float) -> Attack:
    """Mean less some standard deviations of each coordinate (Baruch et al. 2019, arXiv
    1902.06156)."""

    def attack(honest: list[Tensor], number: int, most: float) -> Tensor:
        stacked = torch.stack(honest)
        return stacked.mean(0) - deviations * stacked.std(0)

    return attack


def free_rider(noise: float = 0.0) -> Attack:
    """No work at all: nothing, or noise of so many honest norms."""

    def attack(honest: list[Tensor], number: int, most: float) -> Tensor:
        drawn = torch.randn(NUMEL, generator=torch.Generator().manual_seed(number))
        return noise * _towards(drawn, float(honest[0].norm()))

    return attack


def echo(noise: float = 0.0) -> Attack:
    """The mean of the others, and some noise, instead of work of its own."""

    def attack(honest: list[Tensor], number: int, most: float) -> Tensor:
        mean = _towards(torch.stack(honest[1:]).mean(0), float(honest[0].norm()))
        return mean + free_rider(noise)(honest, number, most)

    return attack


def copy(honest: list[Tensor], number: int, most: float) -> Tensor:
    """What another client sends in this round."""
    return honest[1]


def replay(every: int = 1) -> Attack:
    """An update of rounds ago, honest then."""
    return lambda honest, number, most: _towards(Cohort(seed=5 + number // every).round()[0], float(honest[0].norm()))


def one_tensor(length: float = LIMIT) -> Attack:
    update = torch.zeros(NUMEL)
    update[:64] = 1
    return lambda honest, number, most: _long(update, length, honest, most)


def one_coordinate(length: float = LIMIT) -> Attack:
    update = torch.nn.functional.one_hot(torch.tensor(7), NUMEL).float()
    return lambda honest, number, most: _long(update, length, honest, most)


DRIVING: dict[str, Attack] = {
    "flip": flip(),
    "scale": scale(),
    "constant": constant(),
    "one-tensor": one_tensor(),
    "one-coordinate": one_coordinate(),
}
"""Each at the norm limit: what a plain mean would follow."""
