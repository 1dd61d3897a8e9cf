from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from distributions import DISTRIBUTIONS, drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from torch import Tensor

from fedsense_core.codecs.kernels import launch
from fedsense_core.codecs.packing import pack_codes
from fedsense_core.codecs.rotation import signs
from fedsense_core.codecs.trellis import Trellis, windows
from fedsense_core.codecs.trellis_codebooks import STATE_BITS, TRELLIS_BITS, trellis_codebook
from fedsense_core.codecs.viterbi import backward, best_states, forward
from fedsense_core.errors import FrameError
from fedsense_core.tensors import TensorTable

LAYERS = TensorTable.from_shapes({f"layer{i}": (64, 256) for i in range(8)})
LIMITS = {(8, 1): 0.290, (8, 2): 0.083, (8, 3): 0.024, (12, 1): 0.270, (12, 2): 0.073, (12, 3): 0.0195}
"""Normalised squared error by (state bits, bits): the default, and the slow setting."""
needs_numba = pytest.mark.skipif(not launch.is_available(), reason="numba is not installed")


def draw(name: str, rms: float, table: TensorTable = LAYERS) -> Tensor:
    return drawn(name, rms, table.numel)


def normalised_error(vector: Tensor, codec: Trellis, table: TensorTable, seed: int = 0) -> float:
    decoded = codec.decode(codec.encode(vector, table, seed), table, seed)
    return float((decoded.double() - vector.double()).square().sum() / vector.double().square().sum())


def table_of(size: int) -> TensorTable:
    return TensorTable.from_shapes({"w": (1, size)})


@pytest.mark.parametrize("rms", [1e-9, *(pytest.param(rms, marks=pytest.mark.slow) for rms in (1.0, 1e3))])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("state_bits", "bits"), LIMITS)
@needs_numba
def test_error_is_below_what_was_promised(state_bits: int, bits: int, name: str, rms: float) -> None:
    codec = Trellis(bits, state_bits=state_bits)
    assert normalised_error(draw(name, rms), codec, LAYERS) <= LIMITS[state_bits, bits]


@pytest.mark.parametrize(("state_bits", "bits"), LIMITS)
@needs_numba
def test_error_on_a_real_update_is_below_what_was_promised(
    real_update: tuple[Tensor, TensorTable], state_bits: int, bits: int
) -> None:
    update, table = real_update
    assert normalised_error(update, Trellis(bits, state_bits=state_bits), table) <= LIMITS[state_bits, bits]


@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_more_states_lose_less_and_the_limit_is_never_passed(bits: int) -> None:
    vector = torch.randn(16 * 1024, generator=torch.Generator().manual_seed(1))
    errors = [normalised_error(vector, Trellis(bits, state_bits=n), table_of(vector.numel())) for n in STATE_BITS[:2]]
    assert 4.0**-bits < errors[1] < errors[0]


@pytest.mark.parametrize("bits", TRELLIS_BITS)
@pytest.mark.parametrize("state_bits", STATE_BITS)
def test_the_search_in_a_kernel_and_the_plain_one_give_the_same_payload_and_vector(
    table: TensorTable, state_bits: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(bits))
    vector[:900] = 0
    codec, found = Trellis(bits, state_bits=state_bits), []
    for switch in ("1", "0"):
        monkeypatch.setenv(launch.SWITCH, switch)
        for unbiased in (False, True):
            payload = codec.encode(vector, table, 3, unbiased=unbiased)
            found.append((payload, codec.decode(payload, table, 3).numpy().tobytes()))
    assert found[:2] == found[2:]


@pytest.mark.parametrize("fan", [2, 4])
def test_the_search_finds_the_best_of_all_paths(fan: int) -> None:
    generator, steps = torch.Generator().manual_seed(0), 6
    branches = torch.randn(fan, 8 // fan, generator=generator)
    values, bits = branches.T.reshape(-1), fan.bit_length() - 1
    z_TK = torch.randn(steps, 5, generator=generator)
    costs = torch.full((8, 5), torch.inf)
    costs[3] = 0
    choices = forward(z_TK, branches, costs)
    for k in range(5):
        paths = {}
        for codes in itertools.product(range(fan), repeat=steps):
            state, cost = 3, 0.0
            for t, code in enumerate(codes):
                state = (state << bits | code) % 8
                cost += float((values[state] - z_TK[t, k]) ** 2)
            paths[state] = min(paths.get(state, torch.inf), cost)
        assert costs[:, k].tolist() == pytest.approx([paths[s] for s in range(8)], rel=1e-5)
        end = torch.full((5,), min(paths, key=paths.__getitem__))
        states = backward(end, choices, branches)[:, k]
        assert float((values[states] - z_TK[:, k]).square().sum()) == pytest.approx(min(paths.values()), rel=1e-5)


@pytest.mark.parametrize("bits", TRELLIS_BITS)
@pytest.mark.parametrize("state_bits", STATE_BITS[:2])
def test_paths_are_circles(state_bits: int, bits: int) -> None:
    book = trellis_codebook(state_bits, bits)
    states = best_states(torch.randn(3, 1024, generator=torch.Generator().manual_seed(0)), book.branches_CH)
    before = states.roll(1, 1)
    assert torch.equal(states >> bits, before & (2 ** (state_bits - bits) - 1))
    assert torch.equal(windows(states & (2**bits - 1), bits, state_bits), states)


@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_closing_the_circle_costs_less_than_one_per_cent_of_the_error_of_free_ends(bits: int) -> None:
    book = trellis_codebook(8, bits)
    z_KB = torch.randn(64, 1024, generator=torch.Generator().manual_seed(2))
    circular = (book.values(best_states(z_KB, book.branches_CH)) - z_KB).square().sum(1)
    open_SK = torch.zeros(256, 64)
    forward(z_KB.T.contiguous(), book.branches_CH, open_SK)
    assert float((circular / open_SK.amin(0)).mean()) < 1.01


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 4097), bits=st.sampled_from(TRELLIS_BITS), seed=st.integers(-(2**70), 2**70))
def test_any_size_survives(size: int, bits: int, seed: int) -> None:
    vector, codec = torch.randn(size, generator=torch.Generator().manual_seed(size)), Trellis(bits)
    payload = codec.encode(vector, table_of(size), seed)
    assert len(payload) == codec.payload_bytes(table_of(size))
    decoded = codec.decode(payload, table_of(size), seed)
    assert decoded.shape == (size,)
    assert torch.isfinite(decoded).all()
    assert (decoded - vector).norm() <= vector.norm() * 1.001


@pytest.mark.parametrize("bits", [1, 2])
def test_the_unbiased_scale_gives_the_vector_on_average(bits: int) -> None:
    table, seeds = table_of(4096), 200
    vector, codec = draw("normal", 1e-3, table), Trellis(bits)
    decoded = [codec.decode(codec.encode(vector, table, s, unbiased=True), table, s) for s in range(seeds)]
    mean, energy = torch.stack(decoded).mean(0), vector @ vector
    one = float(np.mean([(d - vector) @ (d - vector) / energy for d in decoded]))
    assert float((mean - vector) @ (mean - vector) / energy) < 1.15 * one / seeds
    assert float(mean @ vector / energy) == pytest.approx(1, abs=1e-4)


def test_zero_blocks_come_back_as_zeros_in_every_bit() -> None:
    vector = torch.zeros(3072)
    vector[1024:2048] = 1.0
    decoded = Trellis(1).decode(Trellis(1).encode(vector, table_of(3072), 5), table_of(3072), 5)
    assert decoded[:1024].numpy().tobytes() + decoded[2048:].numpy().tobytes() == bytes(4 * 2048)


@pytest.mark.parametrize("bits", TRELLIS_BITS)
@pytest.mark.parametrize("state_bits", STATE_BITS)
def test_a_reader_written_from_the_format_alone_agrees(state_bits: int, bits: int) -> None:
    table, codec = TensorTable.from_shapes({"w": (2, 512)}), Trellis(bits, state_bits=state_bits)
    payload = codec.encode(torch.randn(1024, generator=torch.Generator().manual_seed(0)), table, 7)
    string = "".join(format(byte, "08b") for byte in payload[: 128 * bits])
    scale_w, scale_k = (
        np.frombuffer(payload, "<f4", 1, 128 * bits)[0],
        np.frombuffer(payload, "<f2", 1, 128 * bits + 4)[0],
    )
    ends = [(t + 1) * bits for t in range(1024)]
    states = [int((string + string)[len(string) + end - state_bits : len(string) + end], 2) for end in ends]
    q = trellis_codebook(state_bits, bits).values_S.numpy().astype(float)[states]
    read = hadamard(1024) @ (q * float(scale_w) * float(scale_k)) / 32 * signs(7, 0).numpy()
    np.testing.assert_allclose(codec.decode(payload, table, 7).numpy(), read, rtol=0, atol=1e-5)


def test_every_code_string_is_some_path_and_wrong_lengths_are_refused() -> None:
    table, codec = table_of(2048), Trellis(2)
    payload = codec.encode(torch.ones(2048), table, 0)
    codes = torch.randint(0, 4, (2, 1024), generator=torch.Generator().manual_seed(0))
    forged = pack_codes(codes, 2).numpy().tobytes() + payload[512:]
    assert torch.isfinite(codec.decode(forged, table, 0)).all()
    for wrong in (b"", payload[:-1], payload + b"\0"):
        with pytest.raises(FrameError, match="bytes"):
            codec.decode(wrong, table, 0)


def test_values_of_complementary_states_are_opposite_and_the_tables_never_change() -> None:
    digest = hashlib.blake2b(digest_size=8)
    for state_bits, bits in itertools.product(STATE_BITS, TRELLIS_BITS):
        values = trellis_codebook(state_bits, bits).values_S
        assert torch.equal(values, -values.flip(0))
        digest.update(values.numpy().tobytes())
    assert digest.hexdigest() == "f328cb52135b572a"


GOLDEN = {
    (8, 1): "a17854a0a95baa01 68d1b4ed4516969e",
    (8, 2): "f9cc8d6f35bcc35a a7ecce07f0d41dd9",
    (8, 3): "605209b7cbb82e57 0f03ca2b6c95263e",
    (8, 4): "7185e8eb748de5a3 84da900f1664352c",
    (10, 1): "db8796f0e49d2048 82d3cab74bcc6a85",
    (10, 2): "9f4b018cf6c12a15 eaace13f6fa03a86",
    (10, 3): "c37dbd36579359f8 90eb63815e5798f0",
    (10, 4): "05b8200acd08c8df 6c22741d13134a31",
    (12, 1): "e1e972886839801c 445d1976504e00ab",
    (12, 2): "3387005631761521 8532ce192d195a74",
    (12, 3): "3e98f418f302e27a dd84b5a348bd6db4",
    (12, 4): "c29d471cb7be00c3 465da7b581db7ba5",
}
"""Digest of the payload; digest of what it decodes to."""


@pytest.mark.parametrize(("state_bits", "bits"), list(itertools.product(STATE_BITS, TRELLIS_BITS)))
def test_golden_payload(state_bits: int, bits: int) -> None:
    table, codec = TensorTable.from_shapes({"w": (25, 41), "b": (3,)}), Trellis(bits, state_bits=state_bits)
    vector = torch.arange(table.numel, dtype=torch.float32) % 17 - 8
    payload = codec.encode(vector, table, seed=42)
    decoded = codec.decode(payload, table, seed=42)
    digests = [hashlib.blake2b(b, digest_size=8).hexdigest() for b in (payload, decoded.numpy().tobytes())]
    assert " ".join(digests) == GOLDEN[state_bits, bits]


@pytest.mark.gpu
@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_on_a_gpu_decoding_has_the_same_bits_and_encoding_nearly_all_codes(bits: int) -> None:
    vector, codec = draw("normal", 1e-3), Trellis(bits)
    here, there = codec.encode(vector, LAYERS, 1), codec.encode(vector.cuda(), LAYERS, 1)
    code_bytes = LAYERS.numel // 8 * bits
    equal = np.frombuffer(here[:code_bytes], np.uint8) == np.frombuffer(there[:code_bytes], np.uint8)
    assert equal.mean() >= 0.9999
    out = torch.empty(LAYERS.numel, device="cuda")
    assert torch.equal(codec.decode(here, LAYERS, 1, out).cpu(), codec.decode(here, LAYERS, 1))
