"""Write the golden frames beside this script: what every platform must write and read, to the bit.

Run it where the wire format changes on purpose (a raised ``FORMAT_VERSION``, other tables of a
codec), and only then:

    python tests/core/protocol/golden/make_golden.py

Each ``NAME.frame`` is one frame, or a bundle for a client. ``digests.json`` names the BLAKE2b-128
of what each decodes to, in little-endian float32. Inputs come from integers alone, so that no
library's random numbers matter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs.codec import Codec, codec_by_id, get_codec
from fedsense_core.protocol.broadcast import Broadcaster, Stream, receive
from fedsense_core.protocol.frame import FrameHeader, FrameKind, pack, unpack
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable

HERE = Path(__file__).parent
TABLE = TensorTable.from_shapes({"stem.weight": (16, 75), "stem.bias": (16,), "empty": (0, 3), "head.weight": (2, 512)})
"""Coded tensors with and without filling, a small and an empty one."""
STREAM = Stream(0x0123456789ABCDEF, 7, TABLE, 0.75)
SITE, ROUND = "alpha", 3
UPDATES = {
    "none": ("none", 32, 8),
    "bf16": ("bf16", 16, 8),
    "eden-1": ("eden", 1, 8),
    "eden-3": ("eden", 3, 8),
    "eden-8": ("eden", 8, 8),
    "trellis-1": ("trellis", 1, 8),
    "trellis-2": ("trellis", 2, 8),
    "trellis-4-12": ("trellis", 4, 12),
    "sign": ("sign", 1, 8),
    "qsgd-4": ("qsgd", 4, 8),
    "ternary": ("ternary", 2, 8),
    "topk-1": ("topk", 1, 8),
    "float8": ("float8", 8, 8),
    "int8": ("int8", 8, 8),
}
"""File name -> codec, bits, state bits."""
BROADCASTS = {"model": None, "drawn": None, "delta": 2, "snapshot": None}
"""File name -> version that the client holds."""


def numbers(salt: int, exponent: int) -> Tensor:
    """Return a vector (N,) of numbers with 24 significant bits between -2^exponent and
    2^exponent."""
    words = np.arange(1, TABLE.numel + 1, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(salt) * np.uint64(40503)
    words ^= words >> np.uint64(13)
    words = (words * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    signed = (words >> np.uint64(7)).astype(np.int64) - 2**24
    return torch.from_numpy(np.ldexp(signed.astype(np.float32), exponent - 24))


def update_frame(codec: Codec) -> np.ndarray:
    """Return the update of one client."""
    payload = codec.encode(numbers(1, -6), TABLE, STREAM.update_seed(ROUND, SITE))
    header = FrameHeader(
        kind=FrameKind.UPDATE,
        run_id=STREAM.run_id,
        round=ROUND,
        base_version=ROUND,
        base_digest=bytes(range(16)),
        codec_id=codec.id,
        bits=codec.bits,
        elements=TABLE.numel,
        table_digest=TABLE.digest,
        payload_bytes=len(payload),
    )
    return pack(header, payload)


def decoded_update(frame: np.ndarray) -> Tensor:
    """Return what the server decodes of a client's update (N,)."""
    header, payload = unpack(frame)
    codec = codec_by_id(header.codec_id, header.bits)
    return codec.decode(payload, TABLE, STREAM.update_seed(header.round, SITE))


def broadcasts() -> dict[str, np.ndarray]:
    """Return the bundles of the first round, one that leads from version 2 to 4, and one for a
    client with nothing."""
    server, weights, found = Broadcaster(STREAM, get_codec("eden", 4)), numbers(2, 0), {}
    for version in range(1, 5):
        server.advance(weights)
        weights = weights + numbers(2 + version, -4)
        if version == 1:
            found |= {name: server.frames_for(BROADCASTS[name], name == "drawn") for name in ("model", "drawn")}
    return found | {name: server.frames_for(BROADCASTS[name]) for name in ("delta", "snapshot")}


def received(name: str, files: dict[str, np.ndarray]) -> Replica:
    """Return what a client holds that is given a golden bundle, and before it those that it builds
    on."""
    if name != "delta":
        return receive(None, files[name], STREAM, lambda: numbers(2, 0))
    server = Broadcaster(STREAM, get_codec("eden", 4))
    server.advance(numbers(2, 0))
    return receive(server.advance(numbers(2, 0) + numbers(3, -4)), files[name], STREAM)


def golden() -> dict[str, np.ndarray]:
    """Return every golden file's bytes by name."""
    frames = {f"update-{name}": update_frame(get_codec(*codec)) for name, codec in UPDATES.items()}
    return frames | broadcasts()


def digests(files: dict[str, np.ndarray]) -> dict[str, str]:
    """Return the digest of what each file decodes to: an update, or weights and momentum of a
    replica."""
    found = {}
    for name in files:
        if name.startswith("update-"):
            vectors = [decoded_update(files[name])]
        else:
            replica = received(name, files)
            vectors = [replica.weights, replica.momentum]
        state = hashlib.blake2b(digest_size=16)
        for vector in vectors:
            state.update(vector.numpy().astype("<f4").tobytes())
        found[name] = state.hexdigest()
    return found


def main() -> None:
    """Write all files anew."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for old in HERE.glob("*.frame"):
        old.unlink()
    files = golden()
    for name, data in files.items():
        (HERE / f"{name}.frame").write_bytes(data.tobytes())
    (HERE / "digests.json").write_text(json.dumps(digests(files), indent=2) + "\n", encoding="utf-8")
    print(f"{len(files)} frames, {sum(map(len, files.values())):,} bytes")


if __name__ == "__main__":
    main()
