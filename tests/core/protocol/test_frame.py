from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.errors import FrameError
from fedsense_core.protocol.frame import FIELDS, HEADER_BYTES, FrameHeader, FrameKind, checksum, pack, unpack

HEADERS = st.builds(
    FrameHeader,
    kind=st.sampled_from(FrameKind),
    run_id=st.integers(0, 2**64 - 1),
    round=st.integers(0, 2**32 - 1),
    base_version=st.integers(0, 2**64 - 1),
    base_digest=st.binary(min_size=16, max_size=16),
    codec_id=st.integers(0, 255),
    bits=st.integers(0, 2**32 - 1),
    elements=st.integers(0, 2**64 - 1),
    table_digest=st.binary(min_size=16, max_size=16),
    payload_bytes=st.just(0),
)


def header(payload: bytes = b"", **changes: object) -> FrameHeader:
    values: dict[str, object] = {
        "kind": FrameKind.UPDATE,
        "run_id": 0x0102030405060708,
        "round": 3,
        "base_version": 2,
        "base_digest": bytes(range(16)),
        "codec_id": 2,
        "bits": 1,
        "elements": 40,
        "table_digest": bytes(range(16, 32)),
        "payload_bytes": len(payload),
    }
    return FrameHeader(**(values | changes))  # type: ignore[arg-type]


def forged(frame: bytes, **changes: object) -> bytes:
    """The frame with some raw header fields changed and a checksum that matches: what a hostile
    sender can do."""
    names = ["magic", "version", "kind", "codec", "bits", "round", "run", "base", "base_digest", "table_digest"]
    fields = dict(zip([*names, "elements", "payload"], FIELDS.unpack(frame[: FIELDS.size]), strict=True)) | changes
    head = FIELDS.pack(*fields.values())
    return head + checksum(head, memoryview(frame)[HEADER_BYTES:]) + frame[HEADER_BYTES:]


@settings(deadline=None)
@given(head=HEADERS, payload=st.binary(max_size=300))
def test_unpack_inverts_pack(head: FrameHeader, payload: bytes) -> None:
    head = dataclasses.replace(head, payload_bytes=len(payload))
    frame = pack(head, payload)
    assert frame.dtype == np.uint8
    assert frame.shape == (HEADER_BYTES + len(payload),)
    for same in (frame, frame.tobytes(), memoryview(frame.tobytes()), np.repeat(frame, 2)[::2]):
        found, body = unpack(same)
        assert found == head
        assert isinstance(found.kind, FrameKind)
        assert body == payload


def test_pack_takes_any_buffer_and_unpack_copies_nothing() -> None:
    payload = bytes(range(200))
    frames = [pack(header(payload), p) for p in (payload, memoryview(payload), np.frombuffer(payload, np.uint8))]
    assert len({frame.tobytes() for frame in frames}) == 1
    frame = frames[0]
    frame.setflags(write=False)
    _, body = unpack(frame)
    assert body.readonly
    assert np.shares_memory(np.frombuffer(body, np.uint8), frame)


def test_golden_bytes() -> None:
    assert HEADER_BYTES == 96
    expected = (
        "46534652" "0200" "03" "02" "01000000" "03000000" "0807060504030201" "0200000000000000"
        "000102030405060708090a0b0c0d0e0f" "101112131415161718191a1b1c1d1e1f" "2800000000000000" "0300000000000000"
        "3073c21b95852b5ec9067b50049a4a9c" "aabbcc"
    )  # fmt: skip
    assert pack(header(b"abc"), bytes.fromhex("aabbcc")).tobytes().hex() == expected


def test_two_thousand_mutations_are_refused_or_change_nothing() -> None:
    rng = np.random.default_rng(0)
    payload = rng.bytes(150)
    good = pack(header(payload), payload).tobytes()
    refused = 0
    for _ in range(2000):
        bad = mutated(good, rng)
        try:
            found, body = unpack(np.frombuffer(bad, np.uint8))
        except FrameError:
            refused += 1
        else:
            assert bad == good
            assert (found, bytes(body)) == (header(payload), payload)
    assert refused > 1900


def mutated(good: bytes, rng: np.random.Generator) -> bytes:
    """One of: flipped bits, overwritten bytes, truncation, extra bytes, a removed, repeated or
    moved stretch."""
    bad, at = bytearray(good), int(rng.integers(len(good)))
    length = int(rng.integers(1, 20))
    match rng.integers(6):
        case 0:
            for _ in range(rng.integers(1, 4)):
                bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        case 1:
            bad[at : at + length] = rng.bytes(len(bad[at : at + length]))
        case 2:
            del bad[at:]
        case 3:
            bad += rng.bytes(length)
        case 4:
            del bad[at : at + length]
        case _:
            bad[at:at] = bad[max(0, at - length) : at] or b"\0"
    return bytes(bad)


def test_every_single_flipped_bit_is_found() -> None:
    good = pack(header(b"payload"), b"payload")
    for bit in range(8 * len(good)):
        bad = good.copy()
        bad[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(FrameError):
            unpack(bad)


def test_every_truncation_and_any_extra_byte_is_found() -> None:
    good = pack(header(b"payload"), b"payload").tobytes()
    for size in range(len(good)):
        with pytest.raises(FrameError):
            unpack(good[:size])
    with pytest.raises(FrameError, match="promises 7 payload bytes and carries 8"):
        unpack(good + b"\0")


@pytest.mark.parametrize("lie", [0, 6, 8, 2**31, 2**40, 2**64 - 1])
def test_a_lying_length_is_refused_before_anything_is_allocated(lie: int) -> None:
    good = pack(header(b"payload"), b"payload").tobytes()
    with pytest.raises(FrameError, match=f"promises {lie} payload bytes and carries 7"):
        unpack(forged(good, payload=lie))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"PKZP"}, "begin with b'PKZP'"),
        ({"version": 3}, "format 3, this FedSense reads 2: update the older side"),
        ({"kind": 0}, "kind 0"),
        ({"kind": 6}, "kind 6"),
    ],
)
def test_forged_headers_with_a_matching_checksum_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        unpack(forged(pack(header(b"payload"), b"payload").tobytes(), **changes))


@settings(deadline=None)
@given(rest=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(rest: bytes) -> None:
    for frame in (rest, b"FSFR\x01\x00" + rest):
        with pytest.raises(FrameError):
            unpack(frame)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(200, np.int8),
        np.zeros(200, np.float32),
        np.zeros((2, 200), np.uint8),
        np.array(7, np.uint8),
        np.array([b"FSFR", None], object),
        np.zeros(0, np.uint8),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused(array: np.ndarray) -> None:
    with pytest.raises(FrameError):
        unpack(array)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": -1},
        {"run_id": 2**64},
        {"round": 2**32},
        {"codec_id": 256},
        {"elements": -1},
        {"bits": 1.5},
        {"kind": 9},
        {"base_digest": b"short"},
        {"table_digest": bytes(17)},
        {"payload_bytes": 8},
    ],
)
def test_pack_refuses_a_header_that_does_not_fit(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        pack(header(b"payload", **changes), b"payload")
