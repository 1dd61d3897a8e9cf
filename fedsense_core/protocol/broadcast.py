"""Server to clients: which frames carry a client from what it holds to the current replica, and how
it applies them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs.codec import Codec, codec_by_id, get_codec
from fedsense_core.errors import FrameError
from fedsense_core.protocol.frame import FIELDS, FrameHeader, FrameKind, byte_view, pack, unpack
from fedsense_core.protocol.replica import Replica
from fedsense_core.seeds import seed_of
from fedsense_core.state import State
from fedsense_core.tensors import TensorTable

NO_DIGEST = bytes(16)
COUNT = struct.Struct("<I")
LENGTH = struct.Struct("<Q")
MAX_FRAMES = 4096


class NeedsSnapshot(Exception):
    """The client does not hold the base that a frame builds on."""


@dataclass(frozen=True)
class Stream:
    """What both ends of a run's broadcasts agree on."""

    run_id: int
    """Names the run; drawn once, kept with its checkpoints."""
    seed: int
    """Of the configuration: codec rotations follow from it, so equal seeds give equal runs."""
    table: TensorTable
    beta: float | None
    """β of m̂; None where nothing uses m̂, which then stays zero everywhere."""

    def broadcast_seed(self, version: int) -> int:
        """Return the rotation seed of the frame that builds on ``version``: known to both sides,
        never sent."""
        return seed_of("broadcast", self.seed, version)

    def update_seed(self, server_round: int, site: str) -> int:
        """Return the rotation seed of one client's update in one round: clients differ, so their
        errors average."""
        return seed_of("update", self.seed, server_round, site)


@dataclass
class Broadcaster:
    """The server's end of the stream: its replica, and the recent frames that lagging clients
    replay."""

    stream: Stream
    codec: Codec
    replica: Replica | None = None
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    """Version -> frame that leads to it from the version before."""
    _bundles: dict[tuple[int | None, bool], np.ndarray] = field(default_factory=dict)

    def advance(self, weights: Tensor) -> Replica:
        """Encode w_t - ŵ_{t-1}, and move the server's own replica by what clients will decode."""
        self._bundles.clear()
        if self.replica is None:
            self.replica = Replica.first(weights.clone())
            self.frames[1] = self._weights_frame()
            return self.replica
        before = self.replica
        if self.codec.name == "none":
            self.replica = before.replace(weights.clone(), self.stream.beta)
            self.frames[self.replica.version] = self._weights_frame()
        else:
            seed = self.stream.broadcast_seed(before.version)
            payload = self.codec.encode(weights - before.weights, self.stream.table, seed)
            self.frames[before.version + 1] = self._pack(
                FrameKind.DELTA, before.version + 1, before, self.codec, payload
            )
            self.replica = before.advance(self.codec.decode(payload, self.stream.table, seed), self.stream.beta)
        self._forget_what_a_snapshot_replaces()
        return self.replica

    def frames_for(self, known: int | None, draws: bool = False) -> np.ndarray:
        """Return one array with the frames for a client that holds version ``known`` (None:
        nothing).

        One that ``draws`` the first replica itself is told to, instead of being sent it. Clients
        that hold the same get the same array, made once.
        """
        asked = (known, draws and known is None and self.current.version == 1)
        if asked not in self._bundles:
            self._bundles[asked] = bundle([self._drawn_frame()]) if asked[1] else self._bundle_for(known)
        return self._bundles[asked]

    def _bundle_for(self, known: int | None) -> np.ndarray:
        replica = self.current
        if known == replica.version:
            return bundle([])
        if self.codec.name == "none" and self.stream.beta is None:
            return bundle([self._weights_frame()])  # full weights need no base
        missed = range((known or 0) + 1, replica.version + 1)
        if (known is not None or replica.version == 1) and all(version in self.frames for version in missed):
            chosen = [self.frames[version] for version in missed]
            if sum(len(frame) for frame in chosen) <= self.snapshot_bytes or replica.version == 1:
                return bundle(chosen)
        return bundle([self._snapshot_frame()])

    def state_dict(self) -> State:
        """Return the replica and the frames that lagging clients may still need."""
        frames = {str(version): torch.from_numpy(frame) for version, frame in self.frames.items()}
        if self.replica is None:
            return {"frames": frames}
        replica = {"version": self.replica.version, "weights": self.replica.weights, "momentum": self.replica.momentum}
        return {"replica": replica, "frames": frames}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the replica and the frames of a checkpoint."""
        self.replica = Replica(**state["replica"]) if "replica" in state else None
        self.frames = {int(version): frame.numpy() for version, frame in state["frames"].items()}
        self._bundles.clear()

    @property
    def snapshot_bytes(self) -> int:
        """Payload bytes of a snapshot: ŵ and m̂ in float32."""
        return 8 * self.stream.table.numel

    @property
    def current(self) -> Replica:
        """The server's own replica."""
        if self.replica is None:
            raise RuntimeError("advance() comes before frames_for()")
        return self.replica

    def _weights_frame(self) -> np.ndarray:
        replica, exact = self.current, get_codec("none", 32)
        payload = exact.encode(replica.weights, self.stream.table, 0)
        base = Replica(replica.version - 1, replica.weights, replica.momentum)
        return self._pack(FrameKind.MODEL, replica.version, base, exact, payload, NO_DIGEST)

    def _drawn_frame(self) -> np.ndarray:
        replica = self.current
        return self._pack(FrameKind.DRAWN, replica.version, replica, get_codec("none", 32), b"")

    def _snapshot_frame(self) -> np.ndarray:
        replica, exact = self.current, get_codec("none", 32)
        parts = [bytes(exact.encode(vector, self.stream.table, 0)) for vector in (replica.weights, replica.momentum)]
        return self._pack(FrameKind.SNAPSHOT, replica.version, replica, exact, b"".join(parts))

    def _pack(
        self,
        kind: FrameKind,
        version: int,
        base: Replica,
        codec: Codec,
        payload: bytes,
        digest: bytes | None = None,
    ) -> np.ndarray:
        return pack(
            FrameHeader(
                kind=kind,
                run_id=self.stream.run_id,
                round=version,
                base_version=base.version,
                base_digest=base.digest() if digest is None else digest,
                codec_id=codec.id,
                bits=codec.bits,
                elements=self.stream.table.numel,
                table_digest=self.stream.table.digest,
                payload_bytes=len(payload),
            ),
            payload,
        )

    def _forget_what_a_snapshot_replaces(self) -> None:
        """Keep the newest frames that together are smaller than a snapshot, and the newest in any
        case."""
        total = 0
        for version in sorted(self.frames, reverse=True):
            total += len(self.frames[version])
            if total > self.snapshot_bytes and version != self.current.version:
                del self.frames[version]


def receive(
    base: Replica | None, bundled: np.ndarray, stream: Stream, draw: Callable[[], Tensor] | None = None
) -> Replica:
    """Apply the frames of a broadcast to what a client holds.

    ``draw`` returns w_1 (N,) as the client draws it. Raises NeedsSnapshot where a frame builds on a
    base that is not there, or on a first model that the client does not draw; FrameError where it
    is no frame of this run.
    """
    replica = base
    for number, raw in enumerate(unbundle(bundled)):
        header, payload = unpack(raw)
        _check(header, stream)
        if header.kind != FrameKind.DRAWN:
            replica = _apply(replica, header, payload, stream)
        elif number or header.base_version != 1 or len(payload):
            # At most one: a frame of 96 bytes must not make a client digest its model many times.
            raise FrameError("a frame of the drawn model stands first, alone and without payload")
        else:
            replica = _drawn(header.base_digest, draw)
    if replica is None:
        raise NeedsSnapshot
    return replica


def _drawn(digest: bytes, draw: Callable[[], Tensor] | None) -> Replica:
    if draw is None:
        raise NeedsSnapshot
    replica = Replica.first(draw())
    if replica.digest() != digest:
        raise NeedsSnapshot
    return replica


def _apply(replica: Replica | None, header: FrameHeader, payload: memoryview, stream: Stream) -> Replica:
    codec = codec_by_id(header.codec_id, header.bits)
    if header.kind == FrameKind.SNAPSHOT:
        half = len(payload) // 2
        weights, momentum = (codec.decode(part, stream.table, 0) for part in (payload[:half], payload[half:]))
        fresh = Replica(header.base_version, weights, momentum)
        if fresh.digest() != header.base_digest:
            raise FrameError("the snapshot does not have the digest it claims; ask the coordinator to check the run")
        return fresh
    if header.kind == FrameKind.MODEL:
        weights = codec.decode(payload, stream.table, 0)
        if header.base_version == 0 or stream.beta is None:
            return Replica(header.base_version + 1, weights, weights.new_zeros(weights.shape))
        if replica is None or replica.version != header.base_version:
            raise NeedsSnapshot
        return replica.replace(weights, stream.beta)
    if header.kind != FrameKind.DELTA:
        raise FrameError(f"a frame of kind {header.kind.name} does not travel from server to client")
    if replica is None or replica.version != header.base_version or replica.digest() != header.base_digest:
        raise NeedsSnapshot
    delta = codec.decode(payload, stream.table, stream.broadcast_seed(header.base_version))
    return replica.advance(delta, stream.beta)


def _check(header: FrameHeader, stream: Stream) -> None:
    if header.run_id != stream.run_id:
        raise FrameError(f"frame of run {header.run_id:x}, expected {stream.run_id:x}")
    if header.table_digest != stream.table.digest or header.elements != stream.table.numel:
        raise FrameError(
            f"frame of a model with {header.elements} parameters, this client builds one with {stream.table.numel}: "
            "server and client run different code or configuration"
        )


def bundle(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Join frames into one array: every further Array of a message costs a fifth of a second a
    round."""
    head = COUNT.pack(len(frames)) + b"".join(LENGTH.pack(len(frame)) for frame in frames)
    return np.concatenate([np.frombuffer(head, np.uint8), *frames])


def coded_bytes(bundled: np.ndarray, table: TensorTable) -> dict[str, int]:
    """Return the bytes of ``codes`` and ``scales`` in frames of our own; the rest are headers."""
    found = {"codes": 0, "scales": 0}
    for frame in unbundle(bundled):
        _, _, _, codec_id, bits, *_, payload_bytes = FIELDS.unpack(frame[: FIELDS.size].tobytes())
        scales = codec_by_id(codec_id, bits).scale_bytes(table)
        found["scales"] += scales
        found["codes"] += payload_bytes - scales
    return found


def unbundle(bundled: np.ndarray) -> list[np.ndarray]:
    """Split what ``bundle`` joined. Raises FrameError unless the lengths add up exactly."""
    data = np.frombuffer(byte_view(bundled), np.uint8)
    if len(data) < COUNT.size:
        raise FrameError("empty broadcast")
    raw = memoryview(data.data)
    (count,) = COUNT.unpack_from(raw)
    start = COUNT.size + count * LENGTH.size
    if count > MAX_FRAMES or start > len(data):
        raise FrameError(f"broadcast of {len(data)} bytes claims {count} frames")
    lengths = [LENGTH.unpack_from(raw, COUNT.size + i * LENGTH.size)[0] for i in range(count)]
    if start + sum(lengths) != len(data):
        raise FrameError(f"broadcast of {len(data)} bytes claims frames of {sum(lengths)} bytes")
    ends = np.cumsum([start, *lengths])
    return [data[int(a) : int(b)] for a, b in pairwise(ends)]
