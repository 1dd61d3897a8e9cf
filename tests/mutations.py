"""Frames as broken or hostile senders make them: an accepted frame, changed in one of many ways.

Shared by the tests and by ``docs/experiments/fuzz_frames.py``. A mutation is a function of an
accepted frame and a seeded generator. It may seal what it changed, that is, give it a checksum that
fits: anybody can compute one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from fedsense_core.codecs.block_format import HALF_TOP, LARGEST_TENSOR_SCALE, SMALLEST_TOP, BlockLayout
from fedsense_core.codecs.codec import Codec
from fedsense_core.protocol.frame import FIELDS, HEADER_BYTES, checksum
from fedsense_core.tensors import TensorTable

INTEGERS = {"version": 16, "kind": 8, "codec": 8, "bits": 32, "round": 32, "run": 64, "base": 64}
LENGTHS = {"elements": 64, "payload": 64}
"""Bits of the header's integers."""
NAMES = ("magic", *INTEGERS, "base digest", "table digest", *LENGTHS)
LIES = (0, 1, 2**16, 2**31, 2**32, 2**40, 2**63, 2**64 - 1)
PLAIN = ("none", "bf16")
LIMITS = np.array([LARGEST_TENSOR_SCALE, SMALLEST_TOP / HALF_TOP], np.float32)
ODD = (np.nan, -np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0)
BOMBS = {
    "<f4": np.array([*ODD, 3.4028235e38, -3.4028235e38, 2.0**40, 1e-45, 2.0**-126, *LIMITS], "<f4"),
    "<f2": np.array([*ODD, 65504, -65504, 2**15, 2**15 + 32, -(2**15), -(2**15) - 32, 2.0**-24, 2.0**-14], "<f2"),
}
BOMBS["<f4"] = np.concatenate(
    [BOMBS["<f4"], np.nextafter(LIMITS, np.float32(0)), np.nextafter(LIMITS, np.float32(np.inf))]
)
BOMBS["<u2"] = (BOMBS["<f4"].view("<u4") >> 16).astype("<u2")
"""Numbers at, just inside and just outside every limit, by dtype; `<u2` stands for the upper halves
of floats."""


@dataclass(frozen=True)
class Words:
    """Where numbers that scale or are values lie in a payload."""

    start: int
    count: int
    dtype: str

    def of(self, payload: bytes | bytearray) -> np.ndarray:
        """Return them as a view: writable if ``payload`` is."""
        return np.frombuffer(payload, self.dtype, self.count, self.start)


@dataclass(frozen=True)
class Original:
    """A frame that is accepted, and what a mutation must know of it."""

    frame: bytes
    table: TensorTable
    codec: Codec
    others: tuple[bytes, ...]
    """Frames that are right elsewhere: of another codec, round, base, run or model."""

    @cached_property
    def fields(self) -> dict[str, int | bytes]:
        return dict(zip(NAMES, FIELDS.unpack(self.frame[: FIELDS.size]), strict=True))

    @property
    def payload(self) -> bytes:
        return self.frame[HEADER_BYTES:]

    @cached_property
    def words(self) -> dict[str, Words]:
        """Return the numbers in the payload: scales of tensors and blocks, fp16 values; or just
        values."""
        size = len(self.frame) - HEADER_BYTES
        if self.codec.name in PLAIN:
            return {"values": Words(0, size // 4, "<f4") if self.codec.name == "none" else Words(0, size // 2, "<u2")}
        layout = BlockLayout.of(self.table)
        small = Words(size - 2 * layout.small_numel, layout.small_numel, "<f2")
        blocks = Words(small.start - 2 * layout.blocks, layout.blocks, "<f2")
        tensors = Words(blocks.start - 4 * layout.tensors, layout.tensors, "<f4")
        return {"tensor scales": tensors, "block scales": blocks, "values": small}

    @property
    def code_bytes(self) -> int:
        """Return how many bytes of codes the payload begins with."""
        return min(words.start for words in self.words.values())


@dataclass(frozen=True)
class Mutated:
    """What arrives instead of the original."""

    frame: bytes
    sealed: bool = False
    """Whether the checksum was made to fit what was changed."""
    array: bytes | None = None
    """What the Array of the message holds; None for the .npy of ``frame``."""


Mutation = Callable[[Original, np.random.Generator], Mutated]


def sealed(fields: dict[str, int | bytes], payload: bytes | bytearray) -> Mutated:
    """Return a frame with these raw header fields and this payload, whatever they say, and a
    checksum that fits."""
    head = FIELDS.pack(*fields.values())
    return Mutated(b"".join([head, checksum(head, memoryview(payload)), payload]), sealed=True)


def npy(array: np.ndarray) -> bytes:
    """Return what ``numpy.save`` writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def flip(data: bytearray, rng: np.random.Generator, low: int, high: int) -> None:
    """Flip 1 to 16 bits of the bytes from ``low`` to ``high``."""
    for bit in rng.integers(8 * low, 8 * high, size=rng.integers(1, 17)).tolist():
        data[bit >> 3] ^= 1 << (bit & 7)


def stretch(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return begin and end of a stretch of at most a quarter of ``size`` bytes, short ones as
    likely as long ones."""
    length = int(2 ** rng.uniform(0, np.log2(max(2, size // 4))))
    start = int(rng.integers(size - length + 1))
    return start, start + length


def flipped_bits(original: Original, rng: np.random.Generator) -> Mutated:
    data = bytearray(original.frame)
    flip(data, rng, 0, len(data))
    return Mutated(bytes(data))


def truncated(original: Original, rng: np.random.Generator) -> Mutated:
    size = len(original.frame)
    edges = [1, FIELDS.size, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, size - 1, int(rng.integers(size))]
    return Mutated(original.frame[: int(rng.choice(edges))])


def extended(original: Original, rng: np.random.Generator) -> Mutated:
    return Mutated(original.frame + rng.bytes(int(2 ** rng.uniform(0, 12))))


def zeroed_slice(original: Original, rng: np.random.Generator) -> Mutated:
    data = bytearray(original.frame)
    low, high = stretch(len(data), rng)
    data[low:high] = bytes(high - low)
    return Mutated(bytes(data))


def swapped_slices(original: Original, rng: np.random.Generator) -> Mutated:
    data = bytearray(original.frame)
    (low, high), half = stretch(len(data) // 2, rng), len(data) // 2
    data[low:high], data[half + low : half + high] = data[half + low : half + high], data[low:high]
    return Mutated(bytes(data))


def repeated_slice(original: Original, rng: np.random.Generator) -> Mutated:
    data = bytearray(original.frame)
    low, high = stretch(len(data), rng)
    if rng.integers(2):
        data[high:high] = data[low:high]  # a longer frame
    else:
        to = int(rng.integers(len(data) - (high - low) + 1))
        data[to : to + high - low] = data[low:high]
    return Mutated(bytes(data))


def other_field(original: Original, rng: np.random.Generator, *, seal: bool) -> Mutated:
    name = str(rng.choice(NAMES))
    fields = original.fields | {name: other_value(original.fields[name], (INTEGERS | LENGTHS).get(name, 0), rng)}
    if seal:
        return sealed(fields, original.payload)
    return Mutated(FIELDS.pack(*fields.values()) + original.frame[FIELDS.size :])


def other_value(value: int | bytes, bits: int, rng: np.random.Generator) -> int | bytes:
    """Return a boundary value or a neighbour that differs from ``value``."""
    if isinstance(value, bytes):
        data = bytearray(value)
        flip(data, rng, 0, len(data))
        options: list[int | bytes] = [bytes(len(value)), b"\xff" * len(value), value[::-1], bytes(data)]
    else:
        top = 2**bits
        options = [0, 1, top - 1, top // 2, value ^ top // 2, (value + 1) % top, (value - 1) % top]
    differing = [option for option in options if option != value]
    return differing[int(rng.integers(len(differing)))]


def lying_length(original: Original, rng: np.random.Generator) -> Mutated:
    name, payload = str(rng.choice(list(LENGTHS))), original.payload
    true = int(original.fields[name])
    lies = [lie for lie in (*LIES, true - 1, true + 1, true // 2, 2 * true, true + 2**32) if 0 <= lie != true]
    lie = int(lies[int(rng.integers(len(lies)))])
    if name == "payload" and lie <= 2 * true and rng.integers(2):
        payload = (2 * payload)[:lie]  # as long as the lie says
    return sealed(original.fields | {name: lie}, payload)


def bomb(original: Original, rng: np.random.Generator, *, words: str) -> Mutated:
    """Put numbers at and beyond the limits to some or all places."""
    payload = bytearray(original.payload)
    view = original.words[words].of(payload)
    numbers = BOMBS[original.words[words].dtype]
    places = rng.integers(len(view), size=rng.choice([1, 2, len(view)]))
    view[places] = rng.choice(numbers, size=1 if rng.integers(2) else len(places))
    return sealed(original.fields, payload)


def flipped_codes(original: Original, rng: np.random.Generator) -> Mutated:
    """Change nothing but codes, or the low bits of plain numbers: a right frame of another
    update."""
    payload = bytearray(original.payload)
    if original.code_bytes:
        flip(payload, rng, 0, original.code_bytes)
    else:
        view = original.words["values"].of(payload)
        view.view(f"<u{view.itemsize}")[rng.integers(len(view), size=4)] ^= 1
    return sealed(original.fields, payload)


def random_payload(original: Original, rng: np.random.Generator) -> Mutated:
    return sealed(original.fields, rng.bytes(len(original.payload)))


def random_codes(original: Original, rng: np.random.Generator) -> Mutated:
    return sealed(original.fields, rng.bytes(original.code_bytes) + original.payload[original.code_bytes :])


def other_frame(original: Original, rng: np.random.Generator) -> Mutated:
    """Answer with a whole frame that is right elsewhere."""
    return Mutated(original.others[int(rng.integers(len(original.others)))], sealed=True)


def other_payload(original: Original, rng: np.random.Generator) -> Mutated:
    """Put the payload of another frame under the right header, with its length told truly or
    not."""
    payloads = [other[HEADER_BYTES:] for other in original.others if other[HEADER_BYTES:] != original.payload]
    payload = payloads[int(rng.integers(len(payloads)))]
    told = original.fields if rng.integers(2) else original.fields | {"payload": len(payload)}
    return sealed(told, payload)


def concatenated(original: Original, rng: np.random.Generator) -> Mutated:
    second = (original.frame, *original.others)[int(rng.integers(1 + len(original.others)))]
    if rng.integers(2):
        return Mutated(original.frame + second)
    payload = original.payload + second
    return sealed(original.fields | {"payload": len(payload)}, payload)


def empty(original: Original, rng: np.random.Generator) -> Mutated:
    return Mutated(b"", array=[None, b"", b"\x93NUMPY", b"PK\x03\x04"][int(rng.integers(4))])


def other_array(original: Original, rng: np.random.Generator) -> Mutated:
    """Send the right bytes in an array of another type or shape, or behind a header that lies about
    them."""
    arrays = other_arrays(original.frame)
    choice = int(rng.integers(len(arrays) + 1))
    if choice < len(arrays):
        return Mutated(original.frame, array=npy(arrays[choice]))
    data = bytearray(npy(np.frombuffer(original.frame, np.uint8)))
    flip(data, rng, 0, 128)
    return Mutated(original.frame, array=bytes(data))


def other_arrays(frame: bytes) -> list[np.ndarray]:
    """Return the bytes of ``frame`` as arrays that are no frames."""
    octets = np.frombuffer(frame + bytes(-len(frame) % 8), np.uint8)
    types = [np.int8, np.bool_, "<u2", ">f4", np.float64, np.complex64, "S4", "V8"]
    return [*(octets.view(kind) for kind in types), octets[None], octets.reshape(8, -1), np.array(7, np.uint8)]


MUTATIONS: dict[str, Mutation] = {
    "bits flipped": flipped_bits,
    "cut off": truncated,
    "lengthened": extended,
    "slice zeroed": zeroed_slice,
    "slices swapped": swapped_slices,
    "slice repeated": repeated_slice,
    "header field, old checksum": partial(other_field, seal=False),
    "header field": partial(other_field, seal=True),
    "lying length": lying_length,
    "tensor scale bomb": partial(bomb, words="tensor scales"),
    "block scale bomb": partial(bomb, words="block scales"),
    "value bomb": partial(bomb, words="values"),
    "codes flipped": flipped_codes,
    "codes random": random_codes,
    "payload random": random_payload,
    "payload of another frame": other_payload,
    "another frame": other_frame,
    "two frames in one": concatenated,
    "empty": empty,
    "another array": other_array,
}


def mutations_of(original: Original) -> dict[str, Mutation]:
    """Return the mutations that can be done to a frame: plain numbers have neither scales nor
    codes."""
    absent = set() if original.code_bytes else {"tensor scale bomb", "block scale bomb", "codes random"}
    return {name: mutation for name, mutation in MUTATIONS.items() if name not in absent}


def mutate(original: Original, name: str, rng: np.random.Generator) -> Mutated:
    """Return a frame that differs from the original: one where nothing changed is drawn again."""
    while True:
        mutated = MUTATIONS[name](original, rng)
        if mutated.array is not None or mutated.frame != original.frame:
            return mutated
