"""The stream of broadcasts: whatever a client missed, it ends with the server's bits, or asks for a
snapshot."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.codecs.codec import get_codec
from fedsense_core.errors import FrameError
from fedsense_core.protocol.broadcast import Broadcaster, NeedsSnapshot, Stream, bundle, receive, unbundle
from fedsense_core.protocol.frame import HEADER_BYTES, pack, unpack
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({"a": (40, 60), "b": (17,)})
STREAM = Stream(3, 0, TABLE, 0.9)


def walk(codec: str, bits: int, rounds: int, stream: Stream = STREAM) -> tuple[Broadcaster, list[Replica]]:
    server, replicas = Broadcaster(stream, get_codec(codec, bits)), []
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(TABLE.numel, generator=generator)
    for _ in range(rounds):
        replicas.append(server.advance(weights))
        weights = weights + 0.01 * torch.randn(TABLE.numel, generator=generator)
    return server, replicas


@pytest.mark.parametrize(("codec", "bits"), [("eden", 1), ("eden", 4), ("bf16", 16), ("none", 32)])
@pytest.mark.parametrize("held", [None, 1, 3, 5, 6])
def test_client_that_lags_by_any_number_of_rounds_ends_with_the_servers_bits(
    codec: str, bits: int, held: int | None
) -> None:
    server, replicas = walk(codec, bits, 6)
    before = None if held is None else replicas[held - 1]
    after = receive(before, server.frames_for(held), STREAM)
    assert after.version == 6
    assert after.digest() == replicas[-1].digest()


def test_first_round_sends_the_model_itself_and_no_momentum() -> None:
    server, replicas = walk("eden", 4, 1)
    first = receive(None, server.frames_for(None), STREAM)
    assert torch.equal(first.weights, replicas[0].weights)
    assert not first.momentum.any()
    assert len(server.frames_for(None)) < 4 * TABLE.numel + 300


def test_client_that_draws_the_first_model_is_sent_a_header_and_holds_the_same_bits() -> None:
    server, (first,) = walk("eden", 4, 1)
    told = server.frames_for(None, draws=True)
    assert [len(frame) for frame in unbundle(told)] == [HEADER_BYTES]
    assert receive(None, told, STREAM, lambda: first.weights.clone()).digest() == first.digest()
    other = first.weights.clone()
    other[7] = torch.nextafter(other[7], torch.tensor(9.0))
    for draw in (lambda: other, None):
        with pytest.raises(NeedsSnapshot):
            receive(None, told, STREAM, draw)


@pytest.mark.parametrize("held", [None, 1, 2, 3])
def test_only_the_first_model_is_drawn(held: int | None) -> None:
    server, _ = walk("eden", 4, 3)
    assert np.array_equal(server.frames_for(held, draws=True), server.frames_for(held))


def test_model_is_drawn_once_whatever_the_broadcast_says() -> None:
    server, (first,) = walk("eden", 4, 1)
    drawn, model = unbundle(server.frames_for(None, draws=True))[0], unbundle(server.frames_for(None))[0]
    header, _ = unpack(drawn)
    calls = []

    def draw() -> torch.Tensor:
        calls.append(1)
        return first.weights

    padded = pack(replace(header, payload_bytes=3), b"abc")
    later = pack(replace(header, base_version=2), b"")
    for frames in ([drawn] * 9, [model, drawn], [padded], [later]):
        with pytest.raises(FrameError, match="stands first, alone and without payload"):
            receive(None, bundle(frames), STREAM, draw)
    assert len(calls) == 1


def test_replicas_follow_the_model_within_the_codecs_error() -> None:
    server, _ = walk("eden", 4, 1)
    assert server.replica is not None
    target = torch.randn(TABLE.numel)
    errors = []
    for _ in range(6):
        errors.append(float((server.advance(target).weights - target).norm()))
    assert errors[-1] < 1e-4 * errors[0]  # what one frame loses, the next one carries


def test_missed_frames_are_replayed_while_they_are_smaller_than_a_snapshot() -> None:
    server, _ = walk("eden", 1, 6)
    assert len(unbundle(server.frames_for(2))) == 4
    wide, _ = walk("eden", 8, 40)
    assert len(unbundle(wide.frames_for(2))) == 1
    assert len(wide.frames_for(2)) > 8 * TABLE.numel
    assert sum(map(len, wide.frames.values())) <= wide.snapshot_bytes


def test_current_client_is_sent_no_frame() -> None:
    server, replicas = walk("eden", 4, 3)
    assert unbundle(server.frames_for(3)) == []
    assert receive(replicas[-1], server.frames_for(3), STREAM) is replicas[-1]


def test_unguided_full_precision_needs_no_base_and_no_momentum() -> None:
    stream = replace(STREAM, beta=None)
    server, replicas = walk("none", 32, 4, stream)
    after = receive(None, server.frames_for(2), stream)
    assert after.digest() == replicas[-1].digest()
    assert len(server.frames_for(2)) < 4 * TABLE.numel + 300


def test_frame_on_another_base_asks_for_a_snapshot() -> None:
    server, replicas = walk("eden", 4, 3)
    with pytest.raises(NeedsSnapshot):
        receive(None, server.frames_for(2), STREAM)
    with pytest.raises(NeedsSnapshot):
        receive(replicas[0], server.frames_for(2), STREAM)
    flipped = replace(replicas[1], weights=replicas[1].weights + 1e-6)
    with pytest.raises(NeedsSnapshot):
        receive(flipped, server.frames_for(2), STREAM)


def test_frame_of_another_run_or_model_is_refused() -> None:
    server, replicas = walk("eden", 4, 3)
    with pytest.raises(FrameError, match="frame of run 3"):
        receive(replicas[1], server.frames_for(2), replace(STREAM, run_id=4))
    other = TensorTable.from_shapes({"a": (40, 61), "b": (17,)})
    with pytest.raises(FrameError, match="2457"):
        receive(replicas[1], server.frames_for(2), replace(STREAM, table=other))


def test_momentum_is_the_moving_average_of_decoded_differences() -> None:
    _, replicas = walk("eden", 4, 4)
    momentum = torch.zeros(TABLE.numel)
    for before, after in pairwise(replicas):
        momentum = 0.9 * momentum + 0.1 * (after.weights - before.weights)
    assert torch.allclose(replicas[-1].momentum, momentum, atol=1e-7)


@given(st.lists(st.binary(max_size=40), max_size=5))
@settings(max_examples=50, deadline=None)
def test_bundles_split_into_what_was_joined(parts: list[bytes]) -> None:
    frames = [np.frombuffer(part, np.uint8) for part in parts]
    assert [bytes(f) for f in unbundle(bundle(frames))] == parts


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_bundle_or_a_frame_error(data: bytes) -> None:
    with suppress(FrameError):
        unbundle(np.frombuffer(data, np.uint8))
