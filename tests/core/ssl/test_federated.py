"""Federated SIGReg: together the clients minimise that of all their embeddings, whatever those of
each are."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from federation import tiny
from torch import Tensor

from client_app.training import Start, train_locally
from fedsense_core.errors import ConfigError, FrameError
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.protocol.side_channels import judge_all, side_channels
from fedsense_core.ssl.federated import (
    OFFSET,
    SUMS,
    EmbeddingSums,
    FederatedSigreg,
    Offset,
    reply_attachments,
)
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.ssl.sigreg import KNOTS, SigregStatistics, random_directions, sigreg, sigreg_statistics
from fedsense_core.tensors import TensorTable


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def part(directions: Tensor, parts: list[Tensor], i: int) -> FederatedSigreg:
    """Return what client ``i`` trains by where the clients' embeddings are ``parts``, and none of
    it is old."""
    sums = [sigreg_statistics(z.detach(), directions) for z in parts]
    return FederatedSigreg(directions, Offset.between(sums, sums[i]), directions)


def test_among_equals_and_alone_it_is_plain_sigreg_bit_for_bit() -> None:
    z, directions = torch.rand(9, 4, generator=generator(), requires_grad=True), random_directions(6, 4, generator(1))
    plain = sigreg(z, directions)
    (expected,) = torch.autograd.grad(plain, z)
    for one in (part(directions, [z], 0), part(directions, [z, z], 0), FederatedSigreg(directions, None, directions)):
        loss = one.sigreg(z)
        assert torch.equal(loss, plain)
        assert torch.equal(torch.autograd.grad(loss, z)[0], expected)


def test_mean_of_the_clients_gradients_is_the_gradient_on_all_embeddings_at_once() -> None:
    drawn, directions = generator(), random_directions(12, 3, generator(1)).double()
    chips = [torch.randn(n, 5, generator=drawn, dtype=torch.float64) + n / 10 for n in (4, 7, 13)]
    w = torch.randn(5, 3, generator=drawn, dtype=torch.float64, requires_grad=True)
    total = sum(map(len, chips))
    mean, alone = torch.zeros_like(w), torch.zeros_like(w)
    for i, x in enumerate(chips):
        # The number of samples is a factor of SIGReg.
        loss = part(directions, [y @ w for y in chips], i).sigreg(x @ w) / len(x)
        mean += len(x) / total * torch.autograd.grad(loss, w)[0]
        alone += len(x) / total * torch.autograd.grad(sigreg(x @ w, directions) / len(x), w)[0]
    (together,) = torch.autograd.grad(sigreg(torch.cat(chips) @ w, directions) / total, w)
    assert torch.allclose(mean, together, rtol=1e-11, atol=0)
    assert not torch.allclose(alone, together, rtol=0.05, atol=0)


def test_value_is_that_of_all_embeddings_at_once() -> None:
    directions = random_directions(12, 3, generator(1))
    parts = [torch.randn(n, 3, generator=generator(n)) + 1 for n in (5, 11)]
    value = float(part(directions, parts, 0).sigreg(parts[0]))
    assert value == pytest.approx(5 / 16 * float(sigreg(torch.cat(parts), directions)), rel=1e-5)


def test_client_with_half_of_a_gaussian_is_left_alone_where_another_has_the_other_half() -> None:
    z, directions = torch.randn(2000, 3, generator=generator()), random_directions(64, 3, generator(1))
    halves = [z[z[:, 0] > 0], z[z[:, 0] <= 0]]
    plain = float(sigreg(halves[0], directions))
    assert float(part(directions, halves, 0).sigreg(halves[0])) < 2 < 50 < plain


def _federated(chips: list[Tensor], shared: bool) -> float:
    """Train z = x W + b by SIGReg alone, 10 steps of each client between means, and return SIGReg
    of all embeddings."""
    width = chips[0].shape[1]
    w, bias, drawn = 0.1 * torch.eye(width), torch.zeros(width), generator(3)
    offsets: list[Offset | None] = [None] * len(chips)
    directions = random_directions(16, width, drawn)
    for step in range(60):
        later = random_directions(16, width, drawn)
        ends, sums = [], []
        for x, offset in zip(chips, offsets, strict=True):
            own, shift = w.clone().requires_grad_(), bias.clone().requires_grad_()
            optimiser = torch.optim.Adam([own, shift], lr=0.05 * 0.95**step)
            one, seen = FederatedSigreg(directions, offset, later), []
            for _ in range(10):
                z = x @ own + shift
                optimiser.zero_grad()
                (one.sigreg(z) / len(x)).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                seen.append(one.next_sums(z[None]))
            ends.append((own.detach(), shift.detach()))
            sums.append(reduce(add, seen))
        w, bias = (torch.stack(parts).mean(0) for parts in zip(*ends, strict=True))
        offsets = [Offset.between(sums, mine) if shared else None for mine in sums]
        directions = later
    return float(sigreg(torch.cat(chips) @ w + bias, random_directions(256, width, generator(4))))


def test_with_offsets_a_round_old_clients_with_a_slice_each_make_the_whole_gaussian() -> None:
    whole = torch.randn(300, 3, generator=generator())
    slices = list((whole[whole[:, 0].argsort()] @ torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 0.5]]) + 1).split(100))
    together = _federated(slices, shared=True)
    assert together < 2  # 1.05 in the mean for a Gaussian
    assert _federated(slices, shared=False) > 5 * together


def test_bytes_give_the_same_sums_and_cost_136_a_direction() -> None:
    directions = random_directions(6, 4, generator(1))
    sums = sigreg_statistics(torch.randn(9, 4, generator=generator()), directions)
    data = sums.to_bytes()
    assert len(data) == 8 + 136 * 6
    again = SigregStatistics.from_bytes(data, 6)
    assert again.count == 9
    assert torch.equal(again.cosines_MT, sums.cosines_MT)
    assert torch.equal(again.sines_MT, sums.sines_MT)


def test_an_offset_survives_its_bytes_and_costs_136_a_direction() -> None:
    directions = random_directions(6, 4, generator(1))
    sums = [sigreg_statistics(torch.randn(n, 4, generator=generator(n)), directions) for n in (5, 9)]
    offset = Offset.between(sums, sums[0])
    data = offset.to_bytes()
    assert len(data) == 136 * 6
    again = Offset.from_bytes(data, 6)
    assert torch.equal(again.cosines_MT, offset.cosines_MT)
    assert torch.equal(again.sines_MT, offset.sines_MT)


@pytest.mark.parametrize(
    "data", [b"1234", b"\xff" * 816, np.full(204, 2.1, "<f4").tobytes()], ids=["short", "nan", "far"]
)
def test_what_is_no_offset_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="offsets of embeddings have"):
        Offset.from_bytes(data, 6)


def _sums(value: float, count: int) -> bytes:
    full = torch.full((6, KNOTS), value)
    return SigregStatistics(full, full, count).to_bytes()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes of numbers, expected 816"),
        (_sums(0.0, 9)[:-4], "812 bytes"),
        (_sums(0.0, 0), "of no sample"),
        (_sums(9.1, 9), "beyond 9"),
        (_sums(-9.1, 9), "beyond"),
        (_sums(math.nan, 9), "beyond"),
        (_sums(math.inf, 9), "beyond"),
    ],
    ids=["empty", "short", "of-nothing", "too-large", "too-small", "nan", "infinite"],
)
def test_sums_that_no_embeddings_have_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SigregStatistics.from_bytes(data, 6)


def test_each_round_uses_the_directions_of_the_last_ones_sums() -> None:
    config = tiny(train__recipe="lejepa", train__federated_sigreg=True)
    first, second = (FederatedSigreg.of(config, number, {}) for number in (1, 2))
    assert first is not None
    assert second is not None
    assert torch.equal(first.next_directions_MD, second.directions_MD)
    assert not torch.equal(first.directions_MD, second.directions_MD)
    assert first.directions_MD.shape == (256, 16)


def test_sums_are_over_every_view_of_every_step_once_even_where_steps_look_twice() -> None:
    config = tiny(
        train__recipe="lejepa",
        train__federated_sigreg=True,
        train__sigreg_directions=8,
        guidance__kind="sam",
        guidance__scale="absolute",
        guidance__radius=0.05,
    )
    model = build_model(config)
    table = TensorTable.of(model)
    federated = FederatedSigreg.of(config, 1, {})
    start = Start(1, Replica.first(table.read(model)), torch.full((len(table),), 0.05), seed=3)
    chips = iter(torch.randn(2, 4, 3, 16, 16, generator=generator()))
    outcome = train_locally(config, model, table, build_recipe(config, federated), chips, start)
    assert outcome.sums is not None
    assert outcome.sums.count == 2 * 4 * 4
    assert (outcome.sums.cosines_MT[:, 0] == 32).all()  # cos(0) of each


def test_only_lejepa_has_a_regulariser_to_share() -> None:
    with pytest.raises(ConfigError, match=r"train.recipe = 'simclr' does not have"):
        tiny(train__federated_sigreg=True)
    assert FederatedSigreg.of(tiny(train__recipe="lejepa"), 1, {}) is None


SHARED = tiny(train__recipe="lejepa", train__federated_sigreg=True, train__sigreg_directions=6, train__views=3)
THREE = {
    site: sigreg_statistics(torch.randn(n, 4, generator=generator(n)), random_directions(6, 4, generator(1)))
    for site, n in (("beta", 6), ("alpha", 9), ("gamma", 12))
}


def channel(sums: dict[str, SigregStatistics]) -> EmbeddingSums:
    found = EmbeddingSums(SHARED)
    found.accept(sums)
    return found


def test_a_task_says_how_far_all_were_from_its_site_whatever_the_order_of_replies() -> None:
    sent = channel(THREE).for_task("beta")
    in_order = [THREE[site] for site in ("alpha", "beta", "gamma")]
    assert sent == {OFFSET: Offset.between(in_order, THREE["beta"]).to_bytes()}
    assert sent == channel(dict(reversed(THREE.items()))).for_task("beta")
    part = FederatedSigreg.of(SHARED, 2, sent)
    assert part is not None
    assert part.offset is not None
    assert part.offset.to_bytes() == sent[OFFSET]


@pytest.mark.parametrize(
    ("sums", "site"), [({}, "beta"), (THREE, "delta"), ({"beta": THREE["beta"]}, "beta")], ids=["none", "new", "alone"]
)
def test_a_site_without_sums_or_others_gets_nothing(sums: dict[str, SigregStatistics], site: str) -> None:
    assert channel(sums).for_task(site) == {}


def test_sums_of_all_views_are_accepted_as_they_are() -> None:
    sent = reply_attachments(THREE["alpha"])
    (judged,) = judge_all((EmbeddingSums(SHARED),), "round", sent, 3.0).values()  # of 3 views each
    assert judged.to_bytes() == sent[SUMS]
    assert len(sent[SUMS]) == EmbeddingSums(SHARED).limit
    assert reply_attachments(None) == {}


ALPHA = THREE["alpha"].to_bytes()


@pytest.mark.parametrize(
    ("attachments", "examples", "problem"),
    [
        ({}, 3.0, "0 bytes of numbers, expected 816"),
        ({SUMS: ALPHA + b"1"}, 3.0, "825 bytes, at most 824"),
        ({SUMS: ALPHA}, 4.0, "9 samples, its examples have 12 views"),
        ({SUMS: (10**6).to_bytes(8, "little") + ALPHA[8:]}, 3.0, "1000000 samples"),
        ({SUMS: ALPHA[:8] + np.full(816 // 4, 9, "<f4").tobytes()}, 3.0, "contradict each other"),
        ({SUMS: ALPHA[:8] + bytes(816)}, 3.0, "contradict each other"),
        ({SUMS: ALPHA, "notes": b"x"}, 3.0, "'notes', which nobody asked for"),
    ],
    ids=["missing", "long", "too-few", "too-many", "all-ones", "all-zeros", "unknown"],
)
def test_attachments_that_cannot_be_are_refused(attachments: dict[str, bytes], examples: float, problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        judge_all((EmbeddingSums(SHARED),), "round", attachments, examples)


def test_without_the_setting_there_is_no_channel() -> None:
    assert [one.name for one in side_channels(SHARED)] == [SUMS]
    assert side_channels(tiny(train__recipe="lejepa")) == ()


def test_sums_survive_a_checkpoint_to_the_bit() -> None:
    again, state = EmbeddingSums(SHARED), channel(THREE).state_dict()
    again.load_state_dict(state)
    assert {site: one.to_bytes() for site, one in again.sums.items()} == {s: one.to_bytes() for s, one in THREE.items()}
    with pytest.raises(ValueError, match="bytes of numbers"):
        again.load_state_dict({"alpha": state["alpha"][:-1]})
