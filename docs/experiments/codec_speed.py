"""Time every codec against a plain copy of the same vector, in turns, and print a Markdown table
for docs/codec.md.

The reference is ``vector.clone()``: a copy of the float32 vector into new memory, as encoding and
decoding also write new memory. ``copy_`` into memory that already exists is printed beside it. Each
turn times the reference and every codec once; the figures are medians over turns of the ratio
within a turn. Vectors have the shapes of a ViT-S (22 M parameters) and a ViT-B (86 M) and normal
entries.

    OMP_NUM_THREADS=2 python docs/experiments/codec_speed.py
    python docs/experiments/codec_speed.py \\
        --models vit_small_patch16_224 --codecs eden:1 trellis:1:8 --share

``--share`` also times a local training step of the same network on the shipped imagery, and prints
the trellis codec's encoding as a share of a local round. ``--device cuda`` encodes from and decodes
into GPU memory, and prints the share of the memory bandwidth that a plain copy reaches there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import timm
import torch
from torch import Tensor

from client_app.training import Start, train_locally
from fedsense_core.codecs.codec import Codec, get_codec
from fedsense_core.codecs.kernels import launch
from fedsense_core.config import resolve
from fedsense_core.data.batches.feeding import batches_of
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_sites
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

Result = TypeVar("Result")

CODECS = ["none", "bf16", "eden:1", "eden:2", "eden:4", "eden:8", "trellis:1:8", "trellis:2:8", "trellis:4:8"]
LIMITS = {"eden:4": (5.0, 4.0), "eden:1": (6.0, 4.0), "trellis:1:8": (None, 6.0)}
"""Largest ratio to ``clone`` of encoding and decoding that issue 3 asks for."""
PLAIN_LIMIT = 20.0
"""The same for plain torch."""


@dataclass
class Times:
    """Ratios of one codec to the reference, one entry a turn."""

    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)


def main() -> None:
    """Print one table a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_small_patch16_224", "vit_base_patch16_224"])
    parser.add_argument("--codecs", nargs="+", default=CODECS, metavar="NAME[:BITS[:STATE_BITS]]")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="plain torch instead of numba kernels")
    parser.add_argument("--share", action="store_true", help="time a real local round too")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    if options.plain:
        os.environ[launch.SWITCH] = "0"
    for name in options.models:
        table = TensorTable.of(timm.create_model(name, num_classes=0))
        print_table(name, table, options.codecs, options.turns, torch.device(options.device))
        if options.share:
            print_share(name, table, options.codecs)


def print_table(name: str, table: TensorTable, names: list[str], turns: int, device: torch.device) -> None:
    """Time all codecs on one network."""
    vector = (torch.randn(table.numel, generator=torch.Generator().manual_seed(0)) * 1e-3).to(device)
    out = torch.empty_like(vector)
    codecs = {one: codec_of(one) for one in names}
    times = {one: Times() for one in names}
    clones, copies = [], []
    for one in codecs.values():  # compiles, and touches every page once
        one.decode(one.encode(vector, table, 0), table, 0, out)
    for turn in range(turns):
        clones.append(seconds(lambda: vector.clone(), device)[0])
        copies.append(seconds(lambda: out.copy_(vector), device)[0])
        for label, one in codecs.items():
            encode_s, payload = seconds(partial(one.encode, vector, table, turn), device)
            decode_s, _ = seconds(partial(decode_anew, one, payload, table, turn, vector), device)
            times[label].encode_s.append(encode_s)
            times[label].decode_s.append(decode_s)
            times[label].encode.append(encode_s / clones[-1])
            times[label].decode.append(decode_s / clones[-1])
    clone, copy = statistics.median(clones), statistics.median(copies)
    way = "numba kernels" if launch.is_available() and device.type == "cpu" else "plain torch"
    print(f"\n{name}: {table.numel / 1e6:.1f} M parameters, {way}, {torch.get_num_threads()} threads, {turns} turns.")
    print(f"Reference: clone {clone * 1e3:.0f} ms ({4e-9 * table.numel / clone:.1f} GB/s); copy into existing memory")
    print(f"{copy * 1e3:.0f} ms ({4e-9 * table.numel / copy:.1f} GB/s).\n")
    print("| codec | encode, s | to clone (range) | to copy | decode, s | to clone (range) | to copy | limits |")
    print("|---|---|---|---|---|---|---|---|")
    for label, found in times.items():
        print(row(label, found, copy))


def row(label: str, found: Times, copy_s: float) -> str:
    """Return one line of the table."""
    encode_s, decode_s = statistics.median(found.encode_s), statistics.median(found.decode_s)
    limits = LIMITS.get(label, (None, None))
    if not launch.is_available() and label.startswith("eden"):
        limits = (PLAIN_LIMIT, PLAIN_LIMIT)
    cells = [
        label,
        f"{encode_s:.3f}",
        f"{statistics.median(found.encode):.1f} ({min(found.encode):.1f} to {max(found.encode):.1f})",
        f"{encode_s / copy_s:.0f}",
        f"{decode_s:.3f}",
        f"{statistics.median(found.decode):.1f} ({min(found.decode):.1f} to {max(found.decode):.1f})",
        f"{decode_s / copy_s:.0f}",
        ", ".join(f"{what} {limit:g}" for what, limit in zip(("encode", "decode"), limits, strict=True) if limit),
    ]
    return f"| {' | '.join(cells)} |"


def print_share(name: str, table: TensorTable, names: list[str], steps: int = 3) -> None:
    """Time local steps of the network on real chips, and compare a round of the default length with
    one encoding."""
    network = {"model.architecture": name, "model.args": {"patch_size": 8}, "data.view_size": 64}
    config = resolve({**network, "train.local_steps": steps}, {})
    model = build_model(config)
    full = TensorTable.of(model)
    chips = open_chips(load_site(sample_sites()[0]), config.data.bands, config.data.chip_size, None)
    batches = batches_of(chips, config.train.batch_size, torch.Generator().manual_seed(0))
    start = Start(1, Replica.first(full.read(model)), torch.zeros(len(full)), 0, 0, {})
    took, _ = seconds(lambda: train_locally(config, model, full, build_recipe(config), batches, start))
    usual = resolve({}, {}).train.local_steps
    print(f"\nOne local step (simclr, {config.train.batch_size} chips, 64 pixels, patch 8): {took / steps:.2f} s.")
    vector = torch.randn(table.numel) * 1e-3
    for label in names:
        encode_s, _ = seconds(partial(codec_of(label).encode, vector, table, 0))
        print(f"- {label}: encoding is {100 * encode_s / (usual * took / steps):.2f} % of a round of {usual} steps.")


def codec_of(label: str) -> Codec:
    """Return the codec that ``name[:bits[:state bits]]`` names."""
    name, *numbers = label.split(":")
    return get_codec(name, *map(int, numbers)) if numbers else get_codec(name, 0)


def decode_anew(codec: Codec, payload: bytes, table: TensorTable, seed: int, like: Tensor) -> Tensor:
    """Decode into new memory on the device of ``like``."""
    return codec.decode(payload, table, seed, torch.empty_like(like))


def seconds(work: Callable[[], Result], device: torch.device | None = None) -> tuple[float, Result]:
    """Return how long ``work`` takes, and what it returns."""
    settle(device)
    began = time.perf_counter()
    result = work()
    settle(device)
    return time.perf_counter() - began, result


def settle(device: torch.device | None) -> None:
    """Wait until a GPU has done all that was asked of it."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
