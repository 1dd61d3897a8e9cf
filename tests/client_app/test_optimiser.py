"""Inner optimisers: steps worked by hand, and a state that continues as if nothing had happened."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from federation import MASKED_VIT, tiny
from torch import Tensor, nn

from client_app.memory import ClientMemory, Slot
from client_app.muon import Muon, orthogonalised
from client_app.optimiser import hidden_matrices, inner_optimiser
from fedsense_core.config import TrainSection
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica


class Matrix(nn.Module):
    def __init__(self, values: list[list[float]]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def push(self, gradient: list[list[float]]) -> None:
        self.w.grad = torch.tensor(gradient, dtype=torch.float64)


def test_sgd_with_momentum_and_decay_towards_the_shift_worked_by_hand() -> None:
    model = Matrix([[1.0, -2.0]])
    settings = TrainSection(optimiser="sgd", momentum=0.5, weight_decay=0.2)
    optimiser = inner_optimiser(model, settings, {"w": torch.tensor([[0.5, 0.0]], dtype=torch.float64)})
    model.push([[1.0, 2.0]])
    optimiser.step(0.1)
    # w - η λ (w - s) - η g = (1 - .02 * .5 - .1, -2 + .02 * 2 - .2)
    assert model.w.tolist() == [pytest.approx([0.89, -2.16])]
    model.push([[1.0, 2.0]])
    optimiser.step(0.1)
    # the second step goes along g + 0.5 g
    assert model.w.tolist() == [pytest.approx([0.89 - 0.02 * 0.39 - 0.15, -2.16 + 0.02 * 2.16 - 0.3])]


def test_first_step_of_adamw_is_the_sign_of_the_gradient_and_the_decay() -> None:
    model = Matrix([[1.0, -2.0]])
    model.push([[3.0, -0.01]])
    inner_optimiser(model, TrainSection(weight_decay=0.2, epsilon=1e-12), {}).step(0.1)
    assert model.w.tolist() == [pytest.approx([0.98 - 0.1, -1.96 + 0.1])]


def quintic(x: float) -> float:
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return x


def test_muon_steps_worked_by_hand_on_a_diagonal() -> None:
    model = Matrix([[1.0, 0.0], [0.0, 1.0]])
    optimiser = Muon([model.w])
    optimiser.param_groups[0]["lr"] = 0.1
    scale = 0.1 * 0.2 * math.sqrt(2)
    model.push([[3.0, 0.0], [0.0, -4.0]])
    optimiser.step()
    # G + μ B = 1.95 G: of the singular values 3 and 4, five quintics make p(3/5) and p(4/5).
    first = 1 - scale * quintic(0.6), 1 + scale * quintic(0.8)
    assert model.w.diag().tolist() == pytest.approx(first)
    assert not (model.w - model.w.diag().diag()).any()
    model.push([[0.0, 0.0], [0.0, -4.0]])
    optimiser.step()
    # B = (.95 * 3, -.95 * 4 - 4), and G + μ B = (.95² * 3, -4 - .95 * 7.8)
    a, b = 0.95**2 * 3, 4 + 0.95 * 7.8
    norm = math.hypot(a, b)
    expected = [first[0] - scale * quintic(a / norm), first[1] + scale * quintic(b / norm)]
    assert model.w.diag().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_orthogonalised_keeps_singular_vectors_and_brings_their_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    expected = u @ torch.diag(torch.tensor([quintic(float(x)) for x in s / s.norm()], dtype=torch.float64)) @ vt
    found = orthogonalised(matrix)
    assert torch.allclose(found, expected)
    assert bool(((torch.linalg.svdvals(found) - 1).abs() < 0.35).all())
    assert torch.allclose(orthogonalised(1e-9 * matrix), found)
    assert not orthogonalised(0 * matrix).any()


def test_muon_reads_a_kernel_as_one_row_for_each_output() -> None:
    kernel = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    steps = []
    for value in (kernel, kernel.flatten(1)):
        parameter = nn.Parameter(torch.zeros_like(value))
        parameter.grad = value.clone()
        Muon([parameter]).step()
        steps.append(parameter.detach().flatten(1))
    assert torch.equal(steps[0], steps[1])
    assert float(steps[0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.35)  # as large as a step of AdamW


def test_muon_takes_what_lies_between_the_first_layer_and_the_last_ones() -> None:
    convolutional = hidden_matrices(dict(build_model(tiny(train__recipe="byol")).named_parameters()))
    assert "encoder.layer1.0.conv1.weight" in convolutional
    assert {"projector.0.weight", "predictor.0.weight"} <= set(convolutional)
    assert not {"encoder.conv1.weight", "projector.3.weight", "predictor.3.weight"} & set(convolutional)
    assert all(name.endswith("weight") and "bn" not in name for name in convolutional)
    transformer = hidden_matrices(dict(build_model(tiny(**MASKED_VIT)).named_parameters()))
    assert "encoder.blocks.0.attn.qkv.weight" in transformer
    assert not {"encoder.patch_embed.proj.weight", "encoder.pos_embed", "masked.predict.weight"} & set(transformer)


def small_model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def as_one_head(model: nn.Module) -> nn.Module:
    """Return the model as one head, so that Muon has matrices and leaves some."""
    holder = nn.Module()
    holder.head = model
    return holder


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_rounds_with_saved_state_equal_one_long_run(tmp_path: Path, kind: str) -> None:
    settings = TrainSection(optimiser=kind)  # type: ignore[arg-type]
    data = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(1))

    def step(model: nn.Module, optimiser: object, x: Tensor) -> None:
        model.zero_grad()
        model.head(x).square().mean().backward()  # type: ignore[operator, union-attr]
        optimiser.step(1e-2)  # type: ignore[attr-defined]

    whole = as_one_head(small_model())
    optimiser = inner_optimiser(whole, settings, {})
    for x in data:
        step(whole, optimiser, x)
    parts, memory, state = as_one_head(small_model()), ClientMemory(tmp_path, 1), {}
    for number in (1, 2, 3):
        optimiser = inner_optimiser(parts, settings, {})
        optimiser.load_state(state)
        for x in data[2 * number - 2 : 2 * number]:
            step(parts, optimiser, x)
        memory.keep(Slot(number, Replica.first(torch.zeros(1)), optimiser=optimiser.state()))
        slot = memory.recall(number)
        assert slot is not None
        state = slot.optimiser
    assert state
    assert {key.split("/")[0] for key in state} == {
        "adamw": {"step", "exp_avg", "exp_avg_sq"},
        "sgd": {"momentum_buffer"},
        "muon": {"step", "exp_avg", "exp_avg_sq", "momentum_buffer"},
    }[kind]
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_trains_a_tiny_model_below_its_first_loss() -> None:
    model = as_one_head(small_model())
    optimiser = inner_optimiser(model, TrainSection(optimiser="muon", weight_decay=0.0), {})
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(20):
        model.zero_grad()
        loss = model.head(x).square().mean()  # type: ignore[operator, union-attr]
        loss.backward()
        optimiser.step(0.05)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
