"""Measure what entropy coding of the codes would save, in bytes and in time, as Markdown tables for
docs/codec.md.

First table: the codes of every rotated codec on normal numbers, their empirical entropy (what an
ideal coder of single codes would need), and zlib, an actual coder, with its time beside the codec's
own. Second table: the best known alternative at equal bytes, a uniform quantizer followed by an
*ideal* entropy coder, beside the trellis at its fixed length: the step is chosen so that the
entropy of the codes is the rate.

    python docs/experiments/entropy_coding.py
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedsense_core.codecs.block_format import BlockLayout
from fedsense_core.codecs.codec import Codec, get_codec
from fedsense_core.codecs.packing import unpack_codes
from fedsense_core.tensors import TensorTable


def entropy(symbols: NDArray[np.integer]) -> float:
    """Return the empirical entropy of ``symbols`` in bits."""
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def codes_of(payload: bytes, codec: Codec, table: TensorTable) -> NDArray[np.int32]:
    """Return the codes (K, 1024) of a payload."""
    blocks = BlockLayout.of(table).blocks
    packed = np.frombuffer(payload, np.uint8, blocks * 128 * codec.bits).reshape(blocks, -1)
    return unpack_codes(torch.from_numpy(packed.copy()), codec.bits).numpy()


def rows(size: int, seed: int) -> Iterator[str]:
    """Yield one line of the first table for each codec."""
    table = TensorTable.from_shapes({"w": (size // 1024, 1024)})
    vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(seed))
    for name, widths in (("eden", range(1, 9)), ("trellis", range(1, 5))):
        for bits in widths:
            codec = get_codec(name, bits)
            codec.encode(vector[:4096], TensorTable.from_shapes({"w": (4, 1024)}), 0)  # compiles
            began = time.perf_counter()
            payload = codec.encode(vector, table, seed)
            encoded = time.perf_counter()
            squeezed = zlib.compress(payload, 6)
            zipped = time.perf_counter()
            zlib.decompress(squeezed)
            unzipped = time.perf_counter()
            ideal = entropy(codes_of(payload, codec, table))
            cells = [
                f"{name}, {bits} bit",
                f"{ideal:.3f}",
                f"{100 * (1 - ideal / bits):.1f} %",
                f"{100 * (1 - len(squeezed) / len(payload)):.1f} %",
                f"{(zipped - encoded) / (encoded - began):.1f}",
                f"{(unzipped - zipped) / (encoded - began):.1f}",
            ]
            yield f"| {' | '.join(cells)} |"


def uniform_error(rate: float, samples: NDArray[np.float64]) -> float:
    """Return the error of a uniform quantizer whose codes have an entropy of ``rate`` bits, decoded
    to cell means."""

    def codes(step: float) -> NDArray[np.int64]:
        return np.round(samples / step).astype(np.int64)

    step = brentq(lambda step: entropy(codes(step)) - rate, 0.01, 8.0, xtol=1e-4)
    found, inverse = np.unique(codes(step), return_inverse=True)
    means = np.bincount(inverse, samples) / np.bincount(inverse, minlength=len(found))
    return float(np.mean((samples - means[inverse]) ** 2) / np.mean(samples**2))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4 * 2**20, help="numbers coded (default: 4 Mi)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| codec | entropy, bits a code | ideal coder saves | zlib saves | zip / encode | unzip / encode |")
    print("|---|---|---|---|---|---|")
    for row in rows(options.size, options.seed):
        print(row, flush=True)
    samples = np.random.default_rng(options.seed).standard_normal(2**20)
    table = TensorTable.from_shapes({"w": (2**10, 2**10)})
    vector = torch.from_numpy(samples).float()
    print("\n| rate, bits | uniform + ideal entropy coder | trellis L = 8, fixed length | L = 12 | eden | limit |")
    print("|---|---|---|---|---|---|")
    for bits in (1, 2, 3, 4):
        errors = [uniform_error(bits, samples)]
        for codec in (get_codec("trellis", bits, 8), get_codec("trellis", bits, 12), get_codec("eden", bits)):
            decoded = codec.decode(codec.encode(vector, table, 0), table, 0)
            errors.append(float((decoded - vector).square().sum() / vector.square().sum()))
        print(f"| {bits} | {' | '.join(f'{error:.4g}' for error in errors)} | {4.0**-bits:.4g} |")


if __name__ == "__main__":
    main()
