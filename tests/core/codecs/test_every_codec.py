"""What every codec promises, at every size from nothing to four blocks and one number, and at every
width."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsense_core.codecs.codec import Codec, every_codec
from fedsense_core.codecs.kernels import launch
from fedsense_core.errors import FrameError
from fedsense_core.protocol.broadcast import bundle, unbundle
from fedsense_core.protocol.frame import FrameHeader, FrameKind, pack, unpack
from fedsense_core.tensors import TensorTable

LARGEST = 4097
EVERY = every_codec()
QUICK = [codec for codec in EVERY if launch.is_available() or not codec.slow_without_numba]
"""Without numba, the trellis codec's search takes a tenth of a second a block."""


def name_of(codec: Codec) -> str:
    kind = "-filled" if codec.waterfill else ""
    return f"{codec.name}-{codec.bits}-{getattr(codec, 'state_bits', '')}".rstrip("-") + kind


every_codec = pytest.mark.parametrize("codec", EVERY, ids=name_of)


def one_matrix(size: int) -> TensorTable:
    """A matrix: in fp16 below a block's size, in blocks from there on."""
    return TensorTable.from_shapes({"weight": (1, size)})


def mixed(size: int) -> TensorTable:
    """As many numbers in a small tensor, a matrix, an empty tensor and another small one."""
    first, last = min(size, 40), min(max(0, size - 40), 7)
    return TensorTable.from_shapes(
        {"bias": (first,), "weight": (size - first - last, 1), "empty": (0, 3), "cls_token": (1, last)}
    )


def drawn(size: int, seed: int, exponent: int) -> Tensor:
    """Normal numbers about 2^exponent, a third of them zero; where 2^40 does not bound them, it
    does here."""
    rng = np.random.default_rng(seed)
    values = np.ldexp(rng.standard_normal(size) * (rng.random(size) < 2 / 3), exponent)
    return torch.from_numpy(values.clip(-(2.0**40), 2.0**40).astype(np.float32))


def check(codec: Codec, table: TensorTable, vector: Tensor, seed: int) -> bytes:
    """Round trip through codec, frame and bundle; return the payload."""
    payload = codec.encode(vector, table, seed)
    assert len(payload) == codec.payload_bytes(table)
    frame = pack(header(codec, table, len(payload)), payload)
    (arrived,) = unbundle(bundle([frame]))
    found, body = unpack(arrived)
    assert found == header(codec, table, len(payload))
    decoded = codec.decode(body, table, seed)
    assert decoded.shape == (table.numel,)
    assert decoded.dtype == torch.float32
    assert bool(decoded.isfinite().all())
    scratch = torch.full((table.numel,), torch.nan)
    assert codec.decode(payload, table, seed, scratch) is scratch
    assert decoded.numpy().tobytes() == scratch.numpy().tobytes()  # every number of a scratch vector is written
    return payload


def header(codec: Codec, table: TensorTable, payload_bytes: int) -> FrameHeader:
    return FrameHeader(
        kind=FrameKind.UPDATE,
        run_id=1,
        round=1,
        base_version=1,
        base_digest=bytes(16),
        codec_id=codec.id,
        bits=codec.bits,
        elements=table.numel,
        table_digest=table.digest,
        payload_bytes=payload_bytes,
    )


def edges(test: object) -> object:
    for size in (0, 1, 39, 40, 1023, 1024, 1025, 2047, 2048, 4096, LARGEST):
        test = example(size=size, seed=size, exponent=-10, cut=0.999)(test)  # type: ignore[arg-type]
    return test


@pytest.mark.parametrize("codec", QUICK, ids=name_of)
@edges
@settings(deadline=None, max_examples=10)  # beside the edges; every size is tried under slow
@given(
    size=st.integers(0, LARGEST),
    seed=st.integers(0, 2**64 - 1),
    exponent=st.integers(-160, 45),
    cut=st.floats(0, 1, exclude_max=True),
)
def test_any_vector_of_any_size_arrives_finite_in_exactly_the_bytes_foretold(
    codec: Codec, size: int, seed: int, exponent: int, cut: float
) -> None:
    for table in (one_matrix(size), mixed(size)):
        payload = check(codec, table, drawn(size, seed, exponent), seed)
        for wrong in (payload[: int(cut * len(payload))], payload[:-1], payload + b"\0"):
            if len(wrong) != len(payload):
                with pytest.raises(FrameError):
                    codec.decode(wrong, table, seed)


def test_sizes_near_and_far_arrive_with_the_codecs_taking_turns() -> None:
    for turn, size in enumerate(range(0, LARGEST + 1, 5)):  # every size in every codec: under slow
        codec = QUICK[turn % len(QUICK)]
        check(codec, one_matrix(size), drawn(size, size, -7), size)


@pytest.mark.slow
@every_codec
def test_every_size_arrives_in_every_codec(codec: Codec) -> None:
    step = 1 if codec in QUICK else 251
    for size in range(0, LARGEST + 1, step):
        check(codec, one_matrix(size), drawn(size, size, -7), size)


@every_codec
def test_payloads_have_the_bytes_that_the_width_says(codec: Codec) -> None:
    for size in range(LARGEST + 1):
        widths = len(one_matrix(size)) if codec.waterfill else 0
        found, blocks = codec.payload_bytes(one_matrix(size)) - widths, -(-size // 1024)
        if codec.name in ("none", "bf16"):
            assert found == codec.bits * size // 8
        elif size < 1024:
            assert found == 4 + 2 * size  # the tensor's scale, and fp16
        else:
            assert 4 + 2 * blocks < found <= 4 + 2 * blocks + 128 * codec.bits * blocks


@every_codec
def test_every_truncation_is_refused(codec: Codec) -> None:
    table = mixed(1100)
    payload = codec.encode(drawn(1100, 0, 0), table, 0)
    for length in range(len(payload)):
        with pytest.raises(FrameError):
            codec.decode(memoryview(payload)[:length], table, 0)


@every_codec
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_bytes_of_the_right_length_are_finite_numbers_or_refused(codec: Codec, data: st.DataObject) -> None:
    table = mixed(data.draw(st.integers(0, 1200), "size"))
    seed = data.draw(st.integers(0, 2**32), "seed")
    payload = np.random.default_rng(seed).integers(0, 256, codec.payload_bytes(table), dtype=np.uint8)
    zeros = data.draw(st.integers(0, len(payload)), "bytes at the end that are zero")
    payload[len(payload) - zeros :] = 0
    with suppress(FrameError):
        assert bool(codec.decode(payload.tobytes(), table, seed).isfinite().all())


@pytest.mark.parametrize("codec", [codec for codec in EVERY if codec.name in ("eden", "trellis")], ids=name_of)
@settings(deadline=None, max_examples=20)
@given(size=st.integers(1024, 3000), seed=st.integers(0, 2**32))
def test_any_codes_under_the_largest_sound_scales_are_finite_numbers(codec: Codec, size: int, seed: int) -> None:
    table = one_matrix(size)
    payload = np.frombuffer(codec.encode(torch.full((size,), 2.0**40), table, seed), np.uint8).copy()
    blocks, widths = -(-size // 1024), 1 if codec.waterfill else 0
    codes = slice(widths, widths + 128 * codec.bits * blocks)
    payload[codes] = np.random.default_rng(seed).integers(0, 256, codes.stop - codes.start, dtype=np.uint8)
    decoded = codec.decode(payload.tobytes(), table, seed)
    assert bool(decoded.isfinite().all())
    assert bool(decoded.any())
