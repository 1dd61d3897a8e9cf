"""A client that is handed mutated broadcasts: it may refuse them, ask for a snapshot or hold a
replica, nothing else.

Shared by the tests and by ``docs/experiments/fuzz_frames.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from judging import OTHER_TABLE, RUN, TABLE, Tally, numbers
from mutations import (
    LIES,
    Mutated,
    Original,
    extended,
    flipped_bits,
    mutate,
    mutations_of,
    repeated_slice,
    swapped_slices,
    truncated,
    zeroed_slice,
)

from fedsense_core.codecs.codec import codec_by_id, get_codec
from fedsense_core.errors import FrameError
from fedsense_core.protocol.broadcast import Broadcaster, NeedsSnapshot, Stream, bundle, receive, unbundle
from fedsense_core.protocol.frame import unpack
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable

Answer = Replica | Exception
ROUNDS = 6


@dataclass(frozen=True)
class Scene:
    """A client, what it holds, and the bundle that it would take."""

    name: str
    stream: Stream
    held: Replica | None
    bundled: np.ndarray
    strangers: tuple[bytes, ...]
    """Frames of other streams and of other rounds."""

    def answer(self, bundled: np.ndarray) -> Answer:
        """Return the replica that the client then holds, or what it raises."""
        try:
            return receive(self.held, bundled, self.stream)
        except Exception as error:
            return error

    def fault(self, mutated: Mutated, answer: Answer) -> str | None:
        """Return what is wrong with an answer, or None."""
        if isinstance(answer, FrameError | NeedsSnapshot):
            return None if len(str(answer)) <= 1100 else "a reason without end"
        if not isinstance(answer, Replica):
            return f"{type(answer).__name__}: {answer}"
        if not mutated.sealed:
            return "took a bundle with an old checksum"
        vectors = (answer.weights, answer.momentum)
        right = all(one.dtype == torch.float32 and one.shape == (self.stream.table.numel,) for one in vectors)
        return None if right and answer.version >= 0 else "holds what is no replica"


def walk(codec: str, bits: int, stream: Stream) -> tuple[Broadcaster, list[Replica]]:
    """Return a server after some rounds, and its replica after each."""
    server, replicas, weights = Broadcaster(stream, get_codec(codec, bits)), [], numbers(stream.table, 3.0)
    for turn in range(ROUNDS):
        replicas.append(server.advance(weights))
        weights = weights + numbers(stream.table, 0.1 * (turn + 1))
    return server, replicas


def scenes() -> list[Scene]:
    """Return clients that hold nothing, an old or the current version, under several codecs."""
    found = []
    for codec, bits, beta in (
        ("eden", 1, 0.9),
        ("trellis", 2, 0.9),
        ("bf16", 16, 0.9),
        ("none", 32, 0.9),
        ("none", 32, None),
    ):
        server, replicas = walk(codec, bits, Stream(RUN, 0, TABLE, beta))
        strangers = tuple(frame.tobytes() for frame in server.frames.values()) + others(server.stream)
        for held in (None, 1, ROUNDS - 1, ROUNDS):
            before = None if held is None else replicas[held - 1]
            name = f"{codec} {bits}, beta {beta}, holds {held}"
            found.append(Scene(name, server.stream, before, server.frames_for(held), strangers))
    return found


def others(stream: Stream) -> tuple[bytes, ...]:
    """Return frames of another run and of another model."""
    streams: list[tuple[TensorTable, int]] = [(TABLE, stream.run_id + 1), (OTHER_TABLE, stream.run_id)]
    servers = [walk("eden", 4, replace(stream, table=table, run_id=run))[0] for table, run in streams]
    return tuple(server.frames_for(held)[12:].tobytes() for server in servers for held in (None, ROUNDS - 1))


def whole(
    change: Callable[[Original, np.random.Generator], Mutated],
) -> Callable[[Scene, np.random.Generator], Mutated]:
    """Return the mutation that takes a bundle for a frame."""

    def mutation(scene: Scene, rng: np.random.Generator) -> Mutated:
        frame = scene.bundled.tobytes()
        return change(Original(frame, scene.stream.table, get_codec("none", 32), scene.strangers), rng)

    return mutation


def one_frame(scene: Scene, rng: np.random.Generator) -> Mutated:
    """Mutate one of the frames, and bundle it truly with the others."""
    frames = unbundle(scene.bundled) or [np.frombuffer(scene.strangers[0], np.uint8)]
    which = int(rng.integers(len(frames)))
    header, _ = unpack(frames[which])
    codec = codec_by_id(header.codec_id, header.bits)
    original = Original(frames[which].tobytes(), scene.stream.table, codec, scene.strangers)
    names = [name for name in mutations_of(original) if name != "another array"]
    mutated = mutate(original, str(rng.choice(names)), rng)
    frames[which] = np.frombuffer(mutated.frame, np.uint8)
    return Mutated(bundle(frames).tobytes(), mutated.sealed)


def other_order(scene: Scene, rng: np.random.Generator) -> Mutated:
    """Bundle right frames, and frames of others, in any number and order."""
    frames = [*(frame.tobytes() for frame in unbundle(scene.bundled)), *scene.strangers]
    chosen = [np.frombuffer(frames[int(i)], np.uint8) for i in rng.integers(len(frames), size=rng.integers(5))]
    return Mutated(bundle(chosen).tobytes(), sealed=True)


def lying_head(scene: Scene, rng: np.random.Generator) -> Mutated:
    """Put another number of frames, or another length, into the head."""
    data = bytearray(scene.bundled.tobytes())
    lie = int(LIES[int(rng.integers(len(LIES)))])
    if rng.integers(2) or len(data) < 12:
        struct.pack_into("<I", data, 0, lie % 2**32)
    else:
        struct.pack_into("<Q", data, 4, lie)
    return Mutated(bytes(data))


MUTATIONS = {
    "bundle: bits flipped": whole(flipped_bits),
    "bundle: cut off": whole(truncated),
    "bundle: lengthened": whole(extended),
    "bundle: slice zeroed": whole(zeroed_slice),
    "bundle: slices swapped": whole(swapped_slices),
    "bundle: slice repeated": whole(repeated_slice),
    "bundle: lying head": lying_head,
    "bundle: other frames": other_order,
    "bundle: one frame mutated": one_frame,
}


def trial(frames: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Tally:
    """Hand ``frames`` mutated bundles to clients; bundle i depends on ``seed`` and i alone."""
    tally, found = Tally(), scenes()
    names = [*MUTATIONS, *["bundle: one frame mutated"] * 3]  # which are many in one
    for i in range(frames):
        turn, which = divmod(i, len(found))
        scene, name, rng = found[which], names[turn % len(names)], np.random.default_rng([seed, 1, i])
        mutated = MUTATIONS[name](scene, rng)
        if mutated.frame == scene.bundled.tobytes():
            name, mutated = "bundle: unchanged", replace(mutated, sealed=True)
        answer = scene.answer(np.frombuffer(mutated.frame, np.uint8))
        tally.count(f"{name}, bundle {i} of seed {seed}, {scene.name}", name, answer, scene.fault(mutated, answer))
        progress(i + 1)
    return tally
