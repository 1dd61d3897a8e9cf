"""Anchors of federated averaging: fixed points on least squares, Synthetic(α, β), and digits; see
``anchors.py``.

Shapes: n rows of one client, F features, K classes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from anchors_federation import Federation, Setting, cross_entropy, half_squares
from anchors_table import Row
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsense_core.errors import FedSenseError
from fedsense_core.seeds import seed_of

Floats = NDArray[np.float64]


def linear(features: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear map that starts at zero, as the published logistic regressions do."""
    model = nn.Linear(features, outputs, bias=bias)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


# Fixed points
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A way to average, whose fixed point is known in closed form. All rows are one batch, so E is
    the local steps."""

    name: str
    setting: Setting
    rounds: int
    """Enough to stand still in float32."""


LOCAL = Setting(learning_rate=0.1)
RULES = (
    Rule("FedAvg, 1 step", LOCAL, 250),
    Rule("FedAvg, 10 steps", replace(LOCAL, epochs=10), 50),
    Rule("FedAvg, 30 steps", replace(LOCAL, epochs=30), 30),
    Rule("FedProx, μ = 1, 30 steps", replace(LOCAL, epochs=30, proximal=1.0, preset="fedprox"), 50),
    Rule("FedAvg, 10 steps, outer Nesterov", replace(LOCAL, epochs=10, preset="diloco"), 250),
)


def least_squares(seed: int, clients: int = 5, rows: int = 60, features: int = 8) -> list[Tensor]:
    """Draw clients whose inputs and whose true weights differ: (n, F + 1) float32 each."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(clients):
        inputs = generator.normal(size=(rows, features)) * generator.uniform(0.3, 1.5, features)
        truth = 1 + generator.normal(size=features)
        found.append(np.column_stack([inputs, inputs @ truth + 0.1 * generator.normal(size=rows)]))
    return [torch.from_numpy(client).float() for client in found]


def fixed_point(clients: Sequence[Tensor], setting: Setting) -> Floats:
    """Return the weights (F,) that a round of averaging leaves as they are.

    On client j with Hessian H and minimiser θ, K steps of size s on loss + μ/2 |w - w_0|² move w_0
    by -M H (w_0 - θ), M = (I - (I - s (H + μ I))^K) (H + μ I)^-1. The mean over equal clients
    stands still where Σ M_j H_j (w - θ_j) = 0. With K = 1, M is s I, and this is the minimiser of
    all data.
    """
    left, right = 0.0, 0.0
    for client in clients:
        rows = client.double().numpy()
        inputs, targets = rows[:, :-1], rows[:, -1]
        eye = np.eye(inputs.shape[1])
        hessian = inputs.T @ inputs / len(rows)
        inner = hessian + setting.proximal * eye
        moved = eye - np.linalg.matrix_power(eye - setting.learning_rate * inner, setting.epochs)
        weight = moved @ np.linalg.inv(inner)
        left = left + weight @ hessian
        right = right + weight @ inputs.T @ targets / len(rows)
    return np.asarray(np.linalg.solve(left, right))


def averaged(clients: Sequence[Tensor], setting: Setting, seed: int, rounds: int) -> Floats:
    """Return the weights (F,) after ``rounds`` rounds of all clients."""
    with TemporaryDirectory() as folder:
        model = linear(clients[0].shape[1] - 1, 1, bias=False)
        federation = Federation(model, half_squares, clients, setting, seed, Path(folder))
        for _ in range(rounds):
            federation.run_round(range(len(clients)))
    return federation.weights.double().numpy()


def fixed_points(seeds: int, rules: Sequence[Rule] = RULES) -> Iterator[Row]:
    """Yield, for each rule, how far its fixed point is from the minimiser: in closed form, and as
    averaged."""
    for rule in rules:
        published, ours, apart = [], [], []
        for seed in range(seeds):
            clients = least_squares(seed)
            optimum, closed = fixed_point(clients, LOCAL), fixed_point(clients, rule.setting)
            found = averaged(clients, rule.setting, seed, rule.rounds)
            published.append(float(np.linalg.norm(closed - optimum) / np.linalg.norm(optimum)))
            ours.append(float(np.linalg.norm(found - optimum) / np.linalg.norm(optimum)))
            apart.append(float(np.linalg.norm(found - closed) / np.linalg.norm(closed)))
        yield Row(f"{rule.name}: distance to the minimiser", float(np.mean(published)), ours)
        yield Row(f"{rule.name}: distance to the closed form", 0.0, apart, digits=1)


# Synthetic(α, β)
# ----------------------------------------------------------------------------------------------

DEVICES, FEATURES, CLASSES = 30, 60, 10


def synthetic(mix: float, seed: int, devices: int = DEVICES) -> tuple[list[Tensor], Tensor]:
    """Return the training rows of each device and the test rows of all, of Synthetic(α, β) with α =
    β = ``mix``.

    Li et al. 2020 (arXiv 1812.06127, section 5.1): labels argmax(W x + b) with W, b ~ N(u_k, 1),
    u_k ~ N(0, α); inputs x ~ N(v_k, Σ), v_k ~ N(B_k, 1), B_k ~ N(0, β), Σ_jj = j^-1.2; sizes 50 and
    a lognormal (4, 2), as in their code; nine tenths of each device for training.
    """
    generator = np.random.default_rng(seed)
    sizes = generator.lognormal(4, 2, devices).astype(int) + 50
    train, test = [], []
    for size in sizes:
        centre, shift = generator.normal(0, mix), generator.normal(0, mix)
        mean = generator.normal(shift, 1, FEATURES)
        weights, bias = generator.normal(centre, 1, (FEATURES, CLASSES)), generator.normal(centre, 1, CLASSES)
        inputs = mean + generator.normal(size=(size, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.6
        rows = torch.from_numpy(np.column_stack([inputs, (inputs @ weights + bias).argmax(1)])).float()
        train.append(rows[: int(0.9 * size)])
        test.append(rows[int(0.9 * size) :])
    return train, torch.cat(test)


def synthetic_rows(seeds: int, rounds: int = 200, devices: int = DEVICES) -> Iterator[Row]:
    """Yield the test accuracy of FedAvg in percent, mean of the last tenth of the rounds, for each
    published mix."""
    setting = Setting(learning_rate=0.01, epochs=1, batch_size=10)
    for mix in (0.0, 0.5, 1.0):
        found = []
        for seed in range(seeds):
            train, test = synthetic(mix, seed, devices)
            with TemporaryDirectory() as folder:
                federation = Federation(linear(FEATURES, CLASSES), cross_entropy, train, setting, seed, Path(folder))
                curve = []
                for _ in range(rounds):
                    federation.run_round(federation.draw(10))
                    curve.append(100 * federation.accuracy(test))
            found.append(float(np.mean(curve[-max(1, rounds // 10) :])))
        yield Row(f"Synthetic({mix:g}, {mix:g}), accuracy in percent", "above 60", found, digits=3)


# Digits
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """An entry of table 1 of McMahan et al. 2017 (arXiv 1602.05629): the perceptron of two hidden
    layers of 200."""

    name: str
    published: float
    """Rounds to 97 % there."""
    chosen: int
    """Clients of 100 in a round."""
    setting: Setting
    iid: bool = True


SHARDS = 200
CLIENTS = 100
MINIBATCHES = Setting(learning_rate=0.1, epochs=15, batch_size=10)
"""4,000 digits give a client 40: with E = 15 it makes 60 updates a round, as with E = 1 on the 600
of the paper."""
REFERENCE = Entry("IID, C = 0.1, B = 10", 87.0, 10, MINIBATCHES)
ENTRIES = (
    REFERENCE,
    Entry("IID, one client, B = 10", 316.0, 1, MINIBATCHES),
    Entry("IID, C = 0.1, B = ∞", 1474.0, 10, Setting(learning_rate=0.5)),
    Entry("two digits a client, C = 0.1, B = 10", 664.0, 10, MINIBATCHES, iid=False),
)


def read_digits(path: Path) -> Tensor:
    """Return digits (n, 784 + 1) float32, grey values from 0 to 1 and the digit, of a csv.gz with
    the digit last."""
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    if rows.shape[1] != 785:
        raise FedSenseError(f"{path}: rows have {rows.shape[1]} columns, expected 784 grey values and the digit")
    rows[:, :-1] /= 255
    return torch.from_numpy(rows)


def deal(digits: Tensor, iid: bool, seed: int) -> tuple[list[Tensor], Tensor]:
    """Return the rows of 100 clients, and a fifth of all digits to test on.

    ``iid`` deals at random; otherwise sorted digits are cut into 200 shards, and a client gets two
    (section 3).
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(digits))
    test, train = digits[order[: len(digits) // 5]], digits[order[len(digits) // 5 :]]
    if iid:
        return [train[part] for part in np.array_split(np.arange(len(train)), CLIENTS)], test
    shards = np.array_split(np.argsort(train[:, -1].numpy(), kind="stable"), SHARDS)
    pairs = generator.permutation(SHARDS).reshape(CLIENTS, 2)
    return [train[np.concatenate([shards[a], shards[b]])] for a, b in pairs], test


def perceptron(seed: int) -> nn.Sequential:
    """Return the network 784-200-200-10 with torch's initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "perceptron") % 2**63)
        layers = [nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)]
        return nn.Sequential(*layers)


def rounds_to(target: float, entry: Entry, digits: Tensor, seed: int, most: int) -> float:
    """Return the rounds until the best accuracy so far crosses ``target``, interpolated as
    published; or ``most``."""
    clients, test = deal(digits, entry.iid, seed)
    best = 0.0
    with TemporaryDirectory() as folder:
        federation = Federation(perceptron(seed), cross_entropy, clients, entry.setting, seed, Path(folder))
        for done in range(most):
            federation.run_round(federation.draw(entry.chosen))
            accuracy = federation.accuracy(test)
            if accuracy >= target:
                return done + (target - best) / (accuracy - best)
            best = max(best, accuracy)
    return float(most)


def digit_rows(path: Path, seeds: int, target: float = 0.88, most: int = 1000) -> Iterator[Row]:
    """Yield rounds to ``target`` of each entry, each over those of the reference entry of the same
    seed."""
    digits = read_digits(path)
    needed = {entry.name: [rounds_to(target, entry, digits, seed, most) for seed in range(seeds)] for entry in ENTRIES}
    base = needed[REFERENCE.name]
    yield Row(f"rounds, {REFERENCE.name}", "87 to 97 %", base, digits=3)
    for entry in ENTRIES[1:]:
        ratios = [rounds / first for rounds, first in zip(needed[entry.name], base, strict=True)]
        yield Row(f"times these rounds, {entry.name}", entry.published / REFERENCE.published, ratios, digits=3)
