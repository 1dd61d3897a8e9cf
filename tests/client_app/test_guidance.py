"""The shift identity (docs/method.md, section 4) and the controls."""

from __future__ import annotations

import itertools
from copy import deepcopy

import pytest
import torch
from federation import TINY, tiny
from recipes import GivenLoss
from torch import Tensor

from client_app.guidance.direction import global_direction
from client_app.guidance.guidance import Guidance
from client_app.guidance.shift import shift
from client_app.optimiser import inner_optimiser
from client_app.training import Start, train_locally
from fedsense_core.config import Config, GuidanceSection, resolve
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.schedule import learning_rate
from fedsense_core.ssl.recipe import Recipe, build_recipe
from fedsense_core.tensors import TensorTable
from server_app.radius import radii, ramp

STEPS = 6
SHARP = {
    "train__local_steps": STEPS,
    "train__learning_rate": 5e-3,
    "model__args__act_layer": "gelu",
    "train__epsilon": 1e-2,
}
"""Smooth everywhere, or rounding alone decides: no ReLU kinks, and an ε so that Adam does not
divide noise by noise."""


def batches(dtype: torch.dtype, size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 3, 16, 16, generator=generator).to(dtype) for _ in range(STEPS)]


def start_of(model: PretrainingModel, table: TensorTable, dtype: torch.dtype, radius: float = 0.05) -> Start:
    weights = table.read(model).to(dtype)
    momentum = torch.randn(table.numel, generator=torch.Generator().manual_seed(1)).to(dtype)
    return Start(2, Replica(2, weights, momentum), torch.full((len(table),), radius), seed=5, steps_done=STEPS)


def per_step_reference(
    config: Config, model: PretrainingModel, recipe: Recipe, data: list[Tensor], start: Start
) -> Tensor:
    """FedLESAM's form: stay at w, and take each gradient at w + shift. What reads w itself reads w,
    not w + shift."""
    table = TensorTable.of(model)
    direction = global_direction(start.replica.momentum, table, config.guidance, 0)
    offsets = table.unflatten(shift(direction, start.radii, table))
    anchor = build_model(config).to(data[0].dtype).requires_grad_(False)
    table.write(start.replica.weights, anchor)
    table.write(start.replica.weights, model)
    teacher = deepcopy(model).requires_grad_(False)
    optimiser = inner_optimiser(model, config.train, {})
    generator = torch.Generator().manual_seed(start.seed)
    begin = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = sum(learning_rate(config, start.steps_done - 1 - step) for step in range(STEPS))
    path = table.unflatten(start.replica.momentum / before)
    share = config.train.global_momentum

    def move(sign: int) -> None:
        with torch.no_grad():
            for part in (model, teacher):
                for name, p in part.named_parameters():
                    p.add_(offsets[name], alpha=sign)

    for step, batch in enumerate(data):
        model.zero_grad()
        move(1)
        recipe(model, anchor, batch, generator, teacher).total(config.alignment_weight).backward()
        move(-1)
        rate = learning_rate(config, start.steps_done + step)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.grad.add_(config.train.proximal * (p - begin[name]))  # type: ignore[union-attr]
        optimiser.step((1 - share) * rate)
        with torch.no_grad():
            for (name, p), own in zip(model.named_parameters(), teacher.parameters(), strict=True):
                p.add_(share * rate * path[name])
                own.copy_(config.train.teacher_decay * own + (1 - config.train.teacher_decay) * p)
    return table.read(model) - start.replica.weights


def relative_difference(changes: dict[str, object], dtype: torch.dtype) -> float:
    """Return ‖Δ - Δ_ref‖ / ‖Δ_ref‖ of a shifted start and of a perturbation at every step."""
    config = tiny(**SHARP, **changes)
    table = TensorTable.of(model := build_model(config).to(dtype))
    start, data, recipe = start_of(model, table, dtype), batches(dtype), build_recipe(config)
    outcome = train_locally(config, model, table, recipe, iter(data), start)
    reference = per_step_reference(config, build_model(config).to(dtype), recipe, data, start)
    assert outcome.shift_norm > 0
    assert reference.norm() > 0
    return float((outcome.delta - reference).norm() / reference.norm())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_shifted_start_equals_a_perturbation_at_every_step(dtype: torch.dtype, tolerance: float, decay: float) -> None:
    assert relative_difference({"train__weight_decay": decay}, dtype) <= tolerance


@pytest.mark.parametrize(
    "changes",
    [
        {"train__proximal": 2.0},
        {"train__proximal": 2.0, "train__optimiser": "sgd"},
        {"train__optimiser": "sgd"},
        {"train__optimiser": "muon"},
        {"train__recipe": "byol"},
        {"train__global_momentum": 0.5},
        {"guidance__scale": "absolute"},
    ],
    ids=["proximal", "proximal-sgd", "sgd", "muon", "byol", "global-momentum", "absolute"],
)
def test_whatever_reads_the_weights_does_not_see_the_shift(changes: dict[str, object]) -> None:
    assert relative_difference({"train__weight_decay": 0.3, **changes}, torch.float64) <= 1e-10


def test_shift_without_its_decay_correction_would_break_the_identity() -> None:
    """The test above can fail: plain AdamW at the shifted start decays the shift as well."""
    config = tiny(train__weight_decay=0.3, **SHARP)
    table = TensorTable.of(model := build_model(config).double())
    start, data, recipe = start_of(model, table, torch.float64), batches(torch.float64), build_recipe(config)
    reference = per_step_reference(config, build_model(config).double(), recipe, data, start)
    offset = shift(global_direction(start.replica.momentum, table, config.guidance, 0), start.radii, table)
    plain = Start(2, Replica(2, start.replica.weights + offset, start.replica.momentum * 0), start.radii * 0, 5, STEPS)
    outcome = train_locally(config, model, table, recipe, iter(data), plain)
    assert (outcome.delta - reference).norm() > 1e-6 * reference.norm()


@pytest.mark.parametrize("changes", [{"guidance__sign": 0}, {"guidance__kind": "none"}, {"guidance__radius": 0.0}])
def test_controls_without_direction_start_at_the_global_model(changes: dict[str, object]) -> None:
    config = tiny(**changes)
    norms = torch.ones(3)
    assert not radii(config, 4, norms, 3).any()


def test_radius_is_zero_in_round_one_and_ramps_to_its_share_of_the_last_update() -> None:
    config = resolve({**TINY, "run.rounds": 40, "guidance.radius": 0.2}, {})
    norms = torch.tensor([1.0, 10.0])
    assert ramp(config, 1) == 0.0
    assert ramp(config, 3) == pytest.approx(0.5)
    assert ramp(config, 5) == ramp(config, 40) == 1.0
    assert not radii(config, 2, None, 2).any()
    assert torch.allclose(radii(config, 5, norms, 2), torch.tensor([0.2, 2.0]))


def test_absolute_radius_is_full_from_round_one_unless_it_shall_rise() -> None:
    settings = {**TINY, "run.rounds": 40, "guidance.radius": 0.2, "guidance.scale": "absolute"}
    full, rising = resolve({**settings, "guidance.ramp": 0.0}, {}), resolve(settings, {})
    assert radii(full, 1, None, 2).tolist() == pytest.approx([0.2, 0.2])
    assert radii(full, 9, torch.tensor([1.0, 10.0]), 2).tolist() == pytest.approx([0.2, 0.2])
    assert radii(rising, 1, None, 2).tolist() == [0.0, 0.0]
    assert radii(rising, 3, None, 2).tolist() == pytest.approx([0.1, 0.1])
    assert not radii(resolve({**settings, "guidance.sign": 0}, {}), 9, None, 2).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_direction_is_the_unit_momentum_of_each_tensor_against_its_sign(sign: int) -> None:
    table = TensorTable.from_shapes({"a": (4, 3), "b": (5,), "c": (2,)})
    momentum = torch.randn(table.numel)
    momentum[-2:] = 0
    direction = global_direction(momentum, table, GuidanceSection(sign=sign), 0)
    for (spec, d), (_, m) in zip(table.views(direction), table.views(momentum), strict=True):
        if spec.name == "c":
            assert not d.any()
        else:
            assert torch.allclose(d, -sign * m / m.norm())
    scaled = shift(direction, torch.tensor([0.5, 2.0, 1.0]), table)
    assert torch.allclose(table.norms(scaled), torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64))


def test_absolute_shift_of_fedlesam_worked_by_hand() -> None:
    """ρ (w_{t-1} - w_t) / ‖w_{t-1} - w_t‖ over all tensors together, with m̂ = w_t - w_{t-1}."""
    table = TensorTable.from_shapes({"a": (2,), "b": (1,), "c": (1,)})
    before, now = torch.tensor([1.0, 2.0, 5.0, 7.0]), torch.tensor([2.0, 4.0, 3.0, 7.0])  # apart by 3
    guidance = GuidanceSection(scale="absolute", momentum=0.0)
    replica = Replica.first(before).advance(now - before, guidance.momentum)
    offset = shift(global_direction(replica.momentum, table, guidance, 0), torch.full((3,), 0.6), table)
    assert offset.tolist() == pytest.approx([-0.2, -0.4, 0.4, 0.0])


def test_absolute_random_direction_has_length_one_and_is_zero_where_nothing_moved() -> None:
    table = TensorTable.from_shapes({"a": (4, 3), "b": (5,), "c": (2,)})
    momentum = torch.ones(table.numel)
    momentum[-2:] = 0
    direction = global_direction(momentum, table, GuidanceSection(scale="absolute", direction="random"), 3)
    assert float(direction.norm()) == pytest.approx(1.0)
    assert not direction[-2:].any()
    assert not global_direction(0 * momentum, table, GuidanceSection(scale="absolute"), 0).any()


def test_random_direction_is_common_to_all_clients_of_a_round_and_changes_with_it() -> None:
    table = TensorTable.from_shapes({"a": (40, 30)})
    momentum = torch.randn(table.numel)
    settings = GuidanceSection(direction="random")
    one, same, other = (global_direction(momentum, table, settings, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert abs(float(one @ other)) < 0.2
    assert abs(float(one @ (momentum / momentum.norm()))) < 0.2


class Quadratic(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))

    def loss(self) -> Tensor:
        return 0.5 * (torch.tensor([1.0, 2.0], dtype=torch.float64) * self.w**2).sum()


def guidance_of(model: Quadratic, **settings: object) -> Guidance:
    table = TensorTable.of(model)
    direction = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return Guidance.of(GuidanceSection(**settings), table, torch.tensor([0.5]), direction)  # type: ignore[arg-type]


def test_sam_takes_the_gradient_at_the_top_of_the_ball_worked_by_hand() -> None:
    model = Quadratic()
    guidance_of(model, kind="sam").backward(model.loss, dict(model.named_parameters()), 0)
    gradient = torch.tensor([3.0, 8.0], dtype=torch.float64)
    at = torch.tensor([3.0, 4.0], dtype=torch.float64) + 0.5 * gradient / gradient.norm()
    assert torch.allclose(model.w.grad, torch.tensor([1.0, 2.0], dtype=torch.float64) * at)  # type: ignore[arg-type]
    assert torch.allclose(model.w.detach(), torch.tensor([3.0, 4.0], dtype=torch.float64))


def test_mixed_ascends_along_the_mean_of_local_and_global_directions() -> None:
    model = Quadratic()
    guidance_of(model, kind="mixed", mix=0.5).backward(model.loss, dict(model.named_parameters()), 0)
    unit = torch.tensor([3.0, 8.0], dtype=torch.float64)
    unit = 0.5 * unit / unit.norm() + torch.tensor([0.0, 0.5], dtype=torch.float64)
    at = torch.tensor([3.0, 4.0], dtype=torch.float64) + 0.5 * unit / unit.norm()
    assert torch.allclose(model.w.grad, torch.tensor([1.0, 2.0], dtype=torch.float64) * at)  # type: ignore[arg-type]


class TwoTensors(torch.nn.Module):
    """Loss (2 a² + b²)/2 at a = 1.5, b = 4: the gradient (3, 4) has norm 5 over both."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.tensor([4.0], dtype=torch.float64))

    def loss(self) -> Tensor:
        return (self.a.square() + 0.5 * self.b.square()).sum()

    def gradients(self) -> list[float]:
        return [float(self.a.grad), float(self.b.grad)]  # type: ignore[arg-type]


def two_tensors_after(local: tuple[str, ...] = (), **settings: object) -> TwoTensors:
    model = TwoTensors()
    table = TensorTable.of(model, local)
    guidance = GuidanceSection(scale="absolute", **settings)  # type: ignore[arg-type]
    direction, radii_L = torch.tensor([0.0, -1.0][: len(table)]).double(), torch.full((len(table),), 0.5)
    Guidance.of(guidance, table, radii_L, direction).backward(model.loss, dict(model.named_parameters()), 0)
    return model


def test_absolute_sam_has_one_norm_for_all_tensors_worked_by_hand() -> None:
    # ε = 0.5 (3, 4)/5 = (0.3, 0.4), so a -> 1.8 with gradient 2 a, and b -> 4.4.
    model = two_tensors_after(kind="sam")
    assert model.gradients() == pytest.approx([3.6, 4.4])
    assert [model.a.item(), model.b.item()] == pytest.approx([1.5, 4.0])


def test_absolute_mixed_mixes_directions_of_all_tensors_worked_by_hand() -> None:
    # Half of (0.6, 0.8) and half of (0, -1) is (0.3, -0.1), of norm sqrt(0.1).
    a, b = (1.5 + 0.15 / 0.1**0.5), (4.0 - 0.05 / 0.1**0.5)
    assert two_tensors_after(kind="mixed", mix=0.5).gradients() == pytest.approx([2 * a, b])


def test_parameter_that_stays_local_is_not_perturbed_and_gets_one_gradient() -> None:
    # ε = 0.5 on a alone; b's gradient is that of the second look, not the sum of both.
    assert two_tensors_after(("b",), kind="sam").gradients() == pytest.approx([4.0, 4.0])


def test_sam_every_k_ascends_on_every_kth_step_only() -> None:
    plain, top = torch.tensor([3.0, 8.0], dtype=torch.float64), []
    for step in range(4):
        model = Quadratic()
        guidance_of(model, kind="sam-every-k", every=2).backward(model.loss, dict(model.named_parameters()), step)
        top.append(not torch.allclose(model.w.grad, plain))  # type: ignore[arg-type]
    assert top == [True, False, True, False]


def test_second_look_of_sam_sees_the_same_views() -> None:
    config = tiny(guidance__kind="sam", train__local_steps=1)
    table = TensorTable.of(model := build_model(config))
    seen: list[Tensor] = []

    def spy(model: PretrainingModel, x: Tensor, g: torch.Generator) -> Tensor:
        seen.append(torch.rand(3, generator=g))
        return model.embed(x).square().mean()

    recipe = GivenLoss(config, spy)
    train_locally(
        config, model, table, recipe, itertools.cycle(batches(torch.float32)), start_of(model, table, torch.float32)
    )
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_learning_rate() -> None:
    config = tiny()
    table = TensorTable.of(model := build_model(config))
    broken = [batch * float("nan") for batch in batches(torch.float32)]
    with pytest.raises(FloatingPointError, match=r"train\.learning_rate"):
        train_locally(config, model, table, build_recipe(config), iter(broken), start_of(model, table, torch.float32))


def test_alignment_weight_follows_the_recipe_unless_it_is_given() -> None:
    assert tiny().alignment_weight == 0.5
    assert tiny(train__recipe="mae").alignment_weight == 0.1
    assert tiny(train__recipe="mae", alignment__weight=0.3).alignment_weight == 0.3
