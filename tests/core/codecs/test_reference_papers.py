"""The reference codecs do what their papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from distributions import ONE_QUICK
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_codecs import (
    CONTRACTIONS,
    KEPT,
    QSGD,
    TOPK,
    UNBIASED,
    blocks_of,
    draw,
    energy,
    error,
    every_distribution,
    name_of,
    round_trip,
)
from torch import Tensor

from fedsense_core.codecs.float8 import Float8, codes_of, levels_of_codes
from fedsense_core.codecs.int8 import Int8
from fedsense_core.codecs.qsgd import Qsgd
from fedsense_core.codecs.reference import ReferenceCodec
from fedsense_core.codecs.sign import Sign
from fedsense_core.codecs.ternary import Ternary
from fedsense_core.codecs.topk import TopK, kept_of_block


@every_distribution
def test_sign_loses_the_energy_less_the_square_of_the_mean_magnitude(distribution: str) -> None:
    vector = draw(distribution, 20 * 1024 + 300)
    decoded = round_trip(Sign(), vector)
    for block, got in zip(blocks_of(vector), blocks_of(decoded), strict=True):
        kept = float(block.abs().sum()) ** 2 / len(block)  # |x|_1^2 / d, with the block's own d
        assert energy(block - got) == pytest.approx(energy(block) - kept, rel=1e-5)
        assert len(got.abs().unique()) == 1
        assert torch.equal(got > 0, block > 0)


def test_sign_loses_one_less_two_over_pi_of_normal_numbers() -> None:
    vector = draw("normal", 400 * 1024)
    assert error(vector, round_trip(Sign(), vector)) == pytest.approx(1 - 2 / math.pi, rel=0.005)


def test_the_filling_of_a_last_block_does_not_dim_its_sign() -> None:
    vector = draw("normal", 1025)
    assert float(round_trip(Sign(), vector)[-1]) == pytest.approx(float(vector[-1]), rel=2.0**-11)


@every_distribution
@pytest.mark.parametrize("codec", CONTRACTIONS, ids=name_of)
def test_with_error_feedback_everything_is_transmitted_in_the_end(codec: ReferenceCodec, distribution: str) -> None:
    vector = draw(distribution, 4096).double()
    residual, sent = vector.clone(), torch.zeros(4096, dtype=torch.float64)
    for step in range(400 if codec.name == "sign" else 60):  # one bit takes long to fetch a few large numbers
        decoded = round_trip(codec, residual, seed=step).double()
        residual, sent = residual - decoded, sent + decoded
    assert energy(sent + residual - vector) <= 1e-24 * energy(vector)
    assert energy(residual) <= 2e-3 * energy(vector)


@pytest.mark.parametrize(("codec", "least", "most"), [(Qsgd(4), 100, 1e9), (Qsgd(5), 1, 3), (Ternary(), 5, 20)])
def test_with_error_feedback_qsgd_of_few_bits_diverges_and_the_residual_of_ternary_is_large(
    codec: ReferenceCodec, least: float, most: float
) -> None:
    residual = torch.zeros(4096, dtype=torch.float64)
    for step in range(30):
        due = draw("normal", 4096, 1.0, step).double() + residual
        residual = due - round_trip(codec, due, seed=step).double()
    assert least < math.sqrt(energy(residual) / 4096) < most


def mean_decoded(codec: ReferenceCodec, vector: Tensor, seeds: int) -> tuple[Tensor, float]:
    """The mean over seeds of what is decoded, and the mean error of one decoding."""
    decoded = [round_trip(codec, vector, seed=seed) for seed in range(seeds)]
    return torch.stack(decoded).double().mean(0), float(np.mean([error(vector, one) for one in decoded]))


@pytest.mark.parametrize("distribution", ONE_QUICK)
@pytest.mark.parametrize("codec", UNBIASED, ids=name_of)
def test_qsgd_and_ternary_give_the_vector_on_average(codec: ReferenceCodec, distribution: str) -> None:
    vector, seeds = draw(distribution, 4096), 300
    mean, one = mean_decoded(codec, vector, seeds)
    # The mean of n independent unbiased decodings has 1/n of one's error; fp16 scales add at most
    # 2^-22.
    assert error(vector, mean) < 1.15 * one / seeds + 2.0**-22
    along = float(mean @ vector.double()) / energy(vector)
    assert along == pytest.approx(1, abs=4 * math.sqrt(one / seeds / 100) + 2.0**-11)


@pytest.mark.parametrize("distribution", ONE_QUICK)
@pytest.mark.parametrize("codec", QSGD, ids=name_of)
def test_qsgd_has_the_variance_of_its_rounding_within_the_bound_of_the_paper(codec: Qsgd, distribution: str) -> None:
    vector, steps = draw(distribution, 4096), 2 ** (codec.bits - 1) - 1
    _, one = mean_decoded(codec, vector, 100)
    expected = 0.0
    for block in blocks_of(vector):
        exact = block.abs() / block.norm() * steps
        chance = exact - exact.floor()
        expected += float((chance * (1 - chance)).sum()) * energy(block) / steps**2
    assert one == pytest.approx(expected / energy(vector), rel=0.06)
    assert one <= min(1024 / steps**2, math.sqrt(1024) / steps)


def test_qsgd_sends_multiples_of_a_step_next_to_the_number() -> None:
    vector = draw("normal", 8192)
    for block, got in zip(blocks_of(vector), blocks_of(round_trip(Qsgd(5), vector)), strict=True):
        step = float(block.norm()) / 15
        assert ((got / step).round() - got / step).abs().max() < 15 * 2.0**-11
        assert (got - block).abs().max() <= step * 1.001


@every_distribution
def test_ternary_has_the_second_moment_of_the_paper(distribution: str) -> None:
    vector, seeds = draw(distribution, 4096), 400
    moment = float(np.mean([energy(round_trip(Ternary(), vector, seed=seed)) for seed in range(seeds)]))
    expected = sum(float(block.abs().max() * block.abs().sum()) for block in blocks_of(vector))
    assert moment == pytest.approx(expected, rel=0.01)


def test_ternary_sends_zero_and_the_largest_magnitude_which_is_never_dropped() -> None:
    vector = draw("student_t3", 4096)
    for block, got in zip(blocks_of(vector), blocks_of(round_trip(Ternary(), vector)), strict=True):
        top = int(block.abs().argmax())
        assert float(got[top]) == pytest.approx(float(block[top]), rel=2.0**-11)
        assert set((got / got[top].abs()).tolist()) == {-1.0, 0.0, 1.0}
        assert (got * block >= 0).all()


@every_distribution
@pytest.mark.parametrize("codec", TOPK, ids=name_of)
def test_topk_keeps_exactly_the_largest_magnitudes(codec: TopK, distribution: str) -> None:
    vector = draw(distribution, 6 * 1024 + 500)
    decoded, kept = round_trip(codec, vector), KEPT[codec.bits]
    assert kept_of_block(codec.bits) == kept
    for block, got in zip(blocks_of(vector), blocks_of(decoded), strict=True):
        order = np.argsort(-block.abs().numpy(), kind="stable")[:kept]
        assert set(np.flatnonzero(got.numpy())) == set(order)
        assert ((got - block).abs()[order] <= 2.0**-10 * block.abs()[order] + 2.0**-25 * block.abs().max()).all()


def test_topk_keeps_the_first_of_equal_magnitudes() -> None:
    vector = torch.ones(1024)
    vector[::2] = -1
    assert np.flatnonzero(round_trip(TopK(1), vector).numpy()).tolist() == list(range(39))


@settings(max_examples=100, deadline=None)
@example(bits=1, size=4097, power=7.0, seed=4)
@given(bits=st.integers(1, 8), size=st.integers(1024, 4097), power=st.floats(0, 12), seed=st.integers(0, 1000))
def test_topk_contracts_by_the_share_it_keeps(bits: int, size: int, power: float, seed: int) -> None:
    vector = draw("normal", size, seed=seed).double()
    vector = (vector.sign() * (vector.abs() * 1e3) ** power * 1e-3).float()  # power 0: all equal, the hardest input
    decoded, kept = round_trip(TopK(bits), vector), KEPT[bits]
    for block, got in zip(blocks_of(vector), blocks_of(decoded), strict=True):
        share = min(1.0, kept / len(block))
        faint = float(vector.abs().max()) * 2.0**-39 * math.sqrt(kept)  # the last bit of a block scale in fp16
        assert math.sqrt(energy(block - got)) <= math.sqrt((1 - share + 2.0**-20) * energy(block)) + faint


@every_distribution
def test_float8_is_right_to_one_part_in_sixteen_where_its_numbers_are_normal(distribution: str) -> None:
    vector = draw(distribution, 64 * 1024)
    for block, got in zip(blocks_of(vector), blocks_of(round_trip(Float8(), vector)), strict=True):
        smallest = float(block.abs().max()) / 448 * 2.0**-6
        normal = block.abs() >= smallest
        assert ((got - block).abs()[normal] <= (2.0**-4 + 2.0**-10) * block.abs()[normal]).all()
        assert ((got - block).abs()[~normal] <= smallest * (2.0**-4 + 2.0**-10)).all()


def test_float8_has_the_codes_and_numbers_of_the_standard() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    standard = codes.view(torch.float8_e4m3fn).float()
    assert torch.equal(levels_of_codes()[~standard.isnan()], standard[~standard.isnan()])
    assert standard.isnan().nonzero().view(-1).tolist() == [0x7F, 0xFF]
    finite = standard[~standard.isnan()].abs().sort().values
    ties = (finite[1:] + finite[:-1]) / 2
    near = torch.cat([ties, torch.nextafter(ties, torch.tensor(0.0)), torch.nextafter(ties, torch.tensor(1e9))])
    random = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 2.0 ** torch.linspace(-40, 7, 100_000)
    values = torch.cat([near, random, finite]).clamp(-448, 448)
    values = torch.cat([values, -values])
    assert torch.equal(levels_of_codes()[codes_of(values)], values.to(torch.float8_e4m3fn).float())


@every_distribution
def test_int8_is_right_to_half_a_step_of_its_block(distribution: str) -> None:
    vector = draw(distribution, 64 * 1024)
    for block, got in zip(blocks_of(vector), blocks_of(round_trip(Int8(), vector)), strict=True):
        largest = float(block.abs().max())
        assert (got - block).abs().max() <= largest / 254 * (1 + 1e-5) + largest * 2.0**-11
