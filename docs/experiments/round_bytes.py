"""Print the exact bytes of a round, and how long they take over links of several speeds, as tables
for docs/codec.md.

Bytes are those of one client's frames in Flower Arrays: payload, 96 bytes of header, 128 bytes of
Array header, and down the list of frames and the radii and prediction coefficients (8 bytes a
tensor). The tables are of the network alone, without heads. Codec times are measured here, once, on
this machine; local training comes on top of them.

    python docs/experiments/round_bytes.py
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import timm
import torch

from fedsense_core.codecs.codec import Codec, get_codec
from fedsense_core.protocol.broadcast import COUNT, LENGTH
from fedsense_core.protocol.frame import HEADER_BYTES
from fedsense_core.tensors import TensorTable

ARRAY_BYTES = 128
PER_TENSOR = 8
LINKS_MBIT = (5, 20, 100, 1000)
WAYS = (
    ("float32 both ways", ("none", 32), ("none", 32)),
    ("bf16 both ways", ("bf16", 16), ("bf16", 16)),
    ("int8 both ways", ("int8", 8), ("int8", 8)),
    ("eden, 4 up, 4 down", ("eden", 4), ("eden", 4)),
    ("eden, 1 up, 4 down", ("eden", 1), ("eden", 4)),
    ("trellis, 1 up, 4 down", ("trellis", 1), ("trellis", 4)),
    ("trellis, 1 up, 2 down", ("trellis", 1), ("trellis", 2)),
)


@dataclass(frozen=True)
class Cost:
    """One direction of one client's round."""

    bytes: int
    seconds: float
    """Encoding and decoding."""


def cost(codec: Codec, table: TensorTable, vector: torch.Tensor, extra: int) -> Cost:
    """Return the bytes and the codec time of one vector, ``extra`` bytes included."""
    codec.decode(codec.encode(vector, table, 0), table, 0)  # compiles, touches memory
    began = time.perf_counter()
    payload = codec.encode(vector, table, 1)
    codec.decode(payload, table, 1)
    seconds = time.perf_counter() - began
    return Cost(codec.payload_bytes(table) + HEADER_BYTES + ARRAY_BYTES + extra, seconds)


def main() -> None:
    """Print one table a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_small_patch16_224", "vit_base_patch16_224"])
    options = parser.parse_args()
    for name in options.models:
        table = TensorTable.of(timm.create_model(name, num_classes=0))
        vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(0)) * 1e-3
        down_extra = COUNT.size + LENGTH.size + PER_TENSOR * len(table)
        print(f"\n{name}: {table.numel:,} parameters in {len(table)} tensors.\n")
        links = " | ".join(f"{link} Mbit/s" for link in LINKS_MBIT)
        print(f"| codecs | bytes up | bytes down | fewer up | fewer down | codec, s | {links} |")
        print("|---|---|---|---|---|---|" + "---|" * len(LINKS_MBIT))
        full = 4 * table.numel
        for label, up_name, down_name in WAYS:
            up = cost(get_codec(*up_name), table, vector, 0)
            down = cost(get_codec(*down_name), table, vector, down_extra)
            codec_s = up.seconds + down.seconds
            times = [8e-6 * (up.bytes + down.bytes) / link + codec_s for link in LINKS_MBIT]
            cells = [
                label,
                f"{up.bytes:,}",
                f"{down.bytes:,}",
                f"{full / up.bytes:.1f}x",
                f"{full / down.bytes:.1f}x",
                f"{codec_s:.1f}",
                *(f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" for seconds in times),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
