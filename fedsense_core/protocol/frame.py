"""The frame: a fixed header and a payload, all that ever travels between server and clients
(docs/method.md, section 10).

Little-endian, 96 bytes of header:

====== ===== ==================================================================
offset bytes field
====== ===== ==================================================================
0      4     magic ``FSFR``
4      2     format version
6      1     kind
7      1     codec id
8      4     codec bits
12     4     round
16     8     run id
24     8     base-model version
32     16    base-model digest
48     16    tensor table digest
64     8     element count
72     8     payload bytes
80     16    BLAKE2b-128 of the 80 bytes before it and the payload
96           payload
====== ===== ==================================================================

The checksum finds damage, not forgery: who may send is settled by Flower's authentication, what may
be sent by the admission of replies.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fedsense_core.errors import FrameError

MAGIC = b"FSFR"
FORMAT_VERSION = 2
"""Raised whenever any byte of header or payload changes its meaning."""
DIGEST_BYTES = 16
FIELDS = struct.Struct("<4sHBBIIQQ16s16sQQ")
"""The header without its checksum."""
HEADER_BYTES = FIELDS.size + DIGEST_BYTES


class FrameKind(IntEnum):
    """What a payload is."""

    SNAPSHOT = 1
    """Server to client: the whole replica."""
    DELTA = 2
    """Server to client: what to add to the replica."""
    UPDATE = 3
    """Client to server: what local training changed."""
    MODEL = 4
    """Either way: a whole model, codec ``none``."""
    DRAWN = 5
    """Server to client: no payload, only the digest of the first replica, whose weights the client
    draws from the run's seed itself."""


@dataclass(frozen=True)
class FrameHeader:
    """What a frame says about its payload."""

    kind: FrameKind
    run_id: int
    """The run, as its checkpoints name it (not Flower's run id), unsigned, below 2^64."""
    round: int
    """From 1, below 2^32."""
    base_version: int
    """Version of the model that a delta or an update starts from."""
    base_digest: bytes
    """16 bytes that name that model's contents."""
    codec_id: int
    bits: int
    """Bits per parameter of the codec."""
    elements: int
    """Numbers in the decoded vector."""
    table_digest: bytes
    """16 bytes that name the tensor table."""
    payload_bytes: int


def pack(header: FrameHeader, payload: bytes | memoryview | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return header, checksum and ``payload`` as one (bytes,) uint8 array.

    Raises ValueError when the header does not fit its fields or the payload.
    """
    body = np.frombuffer(payload, np.uint8)
    fields = header_fields(header)
    if header.payload_bytes != body.size:
        raise ValueError(f"the header says {header.payload_bytes} payload bytes, the payload has {body.size}")
    frame = np.empty(HEADER_BYTES + body.size, np.uint8)
    frame[: FIELDS.size] = np.frombuffer(fields, np.uint8)
    frame[FIELDS.size : HEADER_BYTES] = np.frombuffer(checksum(fields, body.data), np.uint8)
    frame[HEADER_BYTES:] = body
    return frame


def unpack(frame: NDArray[np.uint8] | bytes) -> tuple[FrameHeader, memoryview]:
    """Return the header of ``frame`` and a read-only view of its payload, without copying it.

    Raises FrameError for anything but a frame that `pack` can have made: nothing is believed, and
    nothing sized by the sender, before length and checksum agree.
    """
    view = byte_view(frame)
    if len(view) < HEADER_BYTES:
        raise FrameError(f"a frame has at least {HEADER_BYTES} bytes, this one has {len(view)}")
    fields, payload = view[: FIELDS.size], view[HEADER_BYTES:]
    magic, version, kind, codec_id, bits, round_, run_id, base_version, *rest = FIELDS.unpack(fields)
    base_digest, table_digest, elements, payload_bytes = rest
    if magic != MAGIC:
        raise FrameError(f"these bytes begin with {magic!r}, a FedSense frame with {MAGIC!r}")
    if version != FORMAT_VERSION:
        raise FrameError(f"the frame has format {version}, this FedSense reads {FORMAT_VERSION}: update the older side")
    if payload_bytes != len(payload):
        raise FrameError(f"the frame promises {payload_bytes} payload bytes and carries {len(payload)}")
    if checksum(fields, payload) != view[FIELDS.size : HEADER_BYTES]:
        raise FrameError("the frame's checksum does not match: it was damaged on its way")
    header = FrameHeader(
        kind=known_kind(kind),
        run_id=run_id,
        round=round_,
        base_version=base_version,
        base_digest=base_digest,
        codec_id=codec_id,
        bits=bits,
        elements=elements,
        table_digest=table_digest,
        payload_bytes=payload_bytes,
    )
    return header, payload


def header_fields(header: FrameHeader) -> bytes:
    """Return the header's bytes before the checksum; raise ValueError for a field that does not
    fit."""
    for name in ("base_digest", "table_digest"):
        if len(getattr(header, name)) != DIGEST_BYTES:
            raise ValueError(f"{name} must have {DIGEST_BYTES} bytes, not {len(getattr(header, name))}")
    try:
        return FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            FrameKind(header.kind),
            header.codec_id,
            header.bits,
            header.round,
            header.run_id,
            header.base_version,
            header.base_digest,
            header.table_digest,
            header.elements,
            header.payload_bytes,
        )
    except struct.error as error:
        raise ValueError(f"a number of {header} does not fit its field: {error}") from error


def checksum(fields: bytes | memoryview, payload: memoryview) -> bytes:
    """Return the 16 bytes that follow ``fields`` in a frame with ``payload``."""
    state = hashlib.blake2b(fields, digest_size=DIGEST_BYTES)
    state.update(payload)
    return state.digest()


def byte_view(frame: NDArray[np.uint8] | bytes) -> memoryview:
    """Return ``frame`` as a read-only view of its bytes; raise FrameError for an array of any other
    dtype or shape."""
    if not isinstance(frame, np.ndarray):
        return memoryview(frame).toreadonly()
    if frame.dtype != np.uint8 or frame.ndim != 1:
        raise FrameError(f"a frame is one row of uint8, not {frame.dtype} of shape {frame.shape}")
    return np.ascontiguousarray(frame).data.toreadonly()


def known_kind(kind: int) -> FrameKind:
    """Return the kind with number ``kind``; raise FrameError when there is none."""
    try:
        return FrameKind(kind)
    except ValueError:
        raise FrameError(f"the frame has kind {kind}, which this version of FedSense does not know") from None
