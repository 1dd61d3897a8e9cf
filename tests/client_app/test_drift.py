"""FedProx and MoFedSAM: what is added to a step, against the equations of their papers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from federation import Federation, same_bits, tiny
from recipes import GivenLoss
from torch import Tensor, nn

from client_app import drift, training
from client_app.drift import GlobalMomentum, Proximal
from client_app.training import Outcome, Start, train_locally
from fedsense_core.config import Config, resolve
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.schedule import learning_rate
from fedsense_core.tensors import TensorTable

STEPS = 3
SGD = {
    "train__optimiser": "sgd",
    "train__momentum": 0.0,
    "train__weight_decay": 0.0,
    "train__learning_rate": 0.05,
    "train__local_steps": STEPS,
    "guidance__kind": "none",
    "alignment__weight": 0.0,
}


def features(model: PretrainingModel, x: Tensor) -> Tensor:
    return model.embed(x).square().mean()


def loss(model: PretrainingModel, x: Tensor, generator: object) -> Tensor:
    return features(model, x)


def data() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 3, 16, 16, generator=generator).double() for _ in range(STEPS)]


def run(
    config: Config, momentum: Tensor | None = None, server_round: int = 2, loss: Callable[..., Tensor] = loss
) -> Outcome:
    model = build_model(config).double()
    table = TensorTable.of(model)
    weights = table.read(model)
    replica = Replica(server_round, weights, torch.zeros_like(weights) if momentum is None else momentum)
    start = Start(server_round, replica, torch.zeros(len(table)), 0, (server_round - 1) * STEPS)
    return train_locally(config, model, table, GivenLoss(config, loss), iter(data()), start)


def test_proximal_gradient_worked_by_hand() -> None:
    module = nn.ParameterDict({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0])})
    module["a"].grad = torch.tensor([10.0, 20.0])
    table = TensorTable.of(module)
    Proximal(0.5, list(module.values()), torch.tensor([0.0, 4.0, 1.0]), table).pull()
    assert module["a"].grad.tolist() == [10.5, 19.0]
    assert module["b"].grad.tolist() == [2.0]  # had no gradient of its own


def test_proximal_term_equals_that_of_the_paper_through_the_graph() -> None:
    weight = 3.0
    config = tiny(**SGD)
    begin = [p.detach().clone() for p in build_model(config).double().parameters()]

    def with_term(model: PretrainingModel, x: Tensor, generator: object) -> Tensor:
        away = [(p - at).square().sum() for p, at in zip(model.parameters(), begin, strict=True)]
        return features(model, x) + 0.5 * weight * torch.stack(away).sum()

    expected, found = run(config, loss=with_term), run(tiny(**SGD, train__proximal=weight))
    plain = run(config)
    assert (found.delta - expected.delta).norm() <= 1e-12 * expected.delta.norm()
    assert found.delta.norm() < plain.delta.norm()
    assert found.ssl_loss < expected.ssl_loss  # the loss that is told has no proximal part


def test_parameters_that_stay_local_are_not_pulled() -> None:
    kept = {"model__local_parameters": ["projector.*"]}
    config = tiny(**SGD, **kept, train__proximal=3.0)
    model = build_model(config).double()
    table = TensorTable.of(model, config.model.local_parameters)
    start = Start(2, Replica.first(table.read(model)), torch.zeros(len(table)), 0)
    with torch.no_grad():
        model.projector[0].weight.add_(1.0)  # type: ignore[index, union-attr, operator]
    before = model.projector[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    train_locally(config, model, table, GivenLoss(config, loss), iter(data()), start)
    assert torch.equal(model.projector[0].weight, before)  # type: ignore[index, arg-type]


def reference(config: Config, update: Tensor, beta: float, rates: Callable[[Config, int], float]) -> Tensor:
    """Algorithm 2 with SGD: v = β g + (1-β) Δ, w ← w - η v, Δ = -update / (η K) at the rates of the
    round before."""
    model = build_model(config).double()
    table = TensorTable.of(model)
    before = table.read(model)
    delta = table.unflatten(-update / sum(rates(config, step) for step in range(STEPS)))
    for step, x in enumerate(data()):
        model.zero_grad()
        features(model, x).backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                gradient = torch.zeros_like(p) if p.grad is None else p.grad
                p.sub_(rates(config, STEPS + step) * (beta * gradient + (1 - beta) * delta[name]))
    return table.read(model) - before


@pytest.mark.parametrize("constant", [True, False], ids=["constant-rate", "scheduled"])
def test_global_momentum_with_sgd_is_that_of_mofedsam(constant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: Callable[[Config, int], float] = (lambda config, step: 0.05) if constant else learning_rate
    monkeypatch.setattr(drift, "learning_rate", rates)
    monkeypatch.setattr(training, "learning_rate", rates)
    config = tiny(**SGD, train__global_momentum=0.9)
    table = TensorTable.of(build_model(config))
    update = 1e-2 * torch.randn(table.numel, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = run(config, update).delta, reference(config, update, 0.1, rates)
    assert (found - expected).norm() <= 1e-12 * expected.norm()


def test_k_steps_at_a_constant_rate_repeat_their_share_of_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "learning_rate", lambda config, step: 0.05)
    module = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(1)})
    update, table = torch.tensor([1.0, 2.0, -3.0]), TensorTable.of(module)
    momentum = GlobalMomentum(tiny(**SGD, train__global_momentum=0.9), list(module.values()), table, update, STEPS)
    for step in range(1, STEPS + 1):
        momentum.repeat(0.05)
        assert torch.allclose(table.read(module), step / STEPS * 0.9 * update)


def test_first_round_of_mofedsam_has_no_update_to_repeat_and_takes_shorter_steps() -> None:
    changes = SGD | {"train__local_steps": 1}
    plain = run(tiny(**changes), server_round=1).delta
    short = run(tiny(**changes, train__global_momentum=0.9), server_round=1).delta
    assert (short - 0.1 * plain).norm() <= 1e-12 * plain.norm()


@pytest.mark.parametrize(
    ("changes", "in_use"),
    [({"preset": "mofedsam"}, 0.0), ({"preset": "fedlesam"}, 0.0), ({"preset": "fedsam"}, None)],
)
def test_last_update_reaches_clients_of_the_methods_that_use_it(
    changes: dict[str, object], in_use: float | None
) -> None:
    assert resolve(changes, {}).momentum_in_use == in_use


def test_mofedsam_sends_models_and_its_clients_hold_the_last_global_update(
    federation: Callable[..., Federation],
) -> None:
    fed = federation(changes={"preset": "mofedsam", "run.rounds": 2})
    fed.run()
    state = fed.state()
    replica = state.replica
    assert replica is not None
    table = TensorTable.of(model := build_model(fed.config))
    assert same_bits(replica.momentum, replica.weights - table.read(model))
    assert all(len(line["accepted"]) == 3 and line["ramp"] == 1.0 for line in fed.lines())
