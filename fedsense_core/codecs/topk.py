"""Top-k: the largest magnitudes of every block travel, each with its index, and all others are
zero.

Stich et al., Sparsified SGD with Memory, NeurIPS 2018 (arXiv 1809.07599), with k numbers of every
block instead of k of the whole vector: indices then take 10 bits. It contracts, |x - C(x)|^2 <= (1
- k/d) |x|^2, and needs a residual.

Codes of one block at b bits: k low bytes of the indices, the two high bits of four indices to a
byte (the first one lowest), k values in fp16 relative to the block's largest magnitude. Indices
ascend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codec import Bytes
from fedsense_core.codecs.reference import ReferenceCodec, Rows
from fedsense_core.codecs.rotation import BLOCK

ENTRY_BITS = 10 + 16
"""An index below 1024 and an fp16 value."""


@dataclass(frozen=True)
class TopK(ReferenceCodec):
    """As many numbers of a block as fit into ``bits`` bits per parameter: 39 at 1 bit, 315 at 8.
    Always biased."""

    name: ClassVar[str] = "topk"
    ids: ClassVar[tuple[int, ...]] = (9,)
    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)

    def block_bytes(self, bits: int) -> int:
        """Return the bytes that the kept numbers of one block take at ``bits`` bits: at most 128
        bits."""
        kept = kept_of_block(bits)
        return kept + -(-kept // 4) + 2 * kept

    def encode_rows(self, rows: Rows, bits: int) -> tuple[Tensor, Tensor]:
        """Return the codes, uint8 (K, block bytes), and max |x|, float32 (K,)."""
        indices = largest(rows.values_KB, kept_of_block(bits))
        values = rows.unit().gather(1, indices).numpy().astype("<f2").view(np.uint8)
        return torch.from_numpy(np.concatenate([*split_indices(indices.numpy()), values], 1)), rows.peaks_K

    def decode_rows(self, codes: Tensor, bits: int) -> Tensor:
        """Return the kept numbers of codes, uint8 (K, block bytes), zeros between them: float32 (K,
        1024)."""
        indices, values = read_entries(codes.numpy(), kept_of_block(bits))
        rows_KB = torch.zeros(len(codes), BLOCK)
        return rows_KB.scatter_(1, torch.from_numpy(indices), torch.from_numpy(values))

    def are_sound(self, codes: Bytes, bits: int) -> bool:
        """Tell whether indices ascend, none twice, and no value is NaN or above the block's
        largest."""
        indices, values = read_entries(codes, kept_of_block(bits))
        return bool((np.diff(indices, axis=1) > 0).all()) and bool((np.abs(values) <= 1).all())


def kept_of_block(bits: int) -> int:
    """Return k, the numbers of a block that travel at ``bits`` bits per parameter."""
    return BLOCK * bits // ENTRY_BITS


def largest(values_KB: Tensor, kept: int) -> Tensor:
    """Return the indices of the ``kept`` largest magnitudes of each row, int64 (K, kept),
    ascending; of equal magnitudes those of the first."""
    magnitudes = values_KB.abs().view(torch.int32).to(torch.int64)  # as integers, floats without a sign order the same
    # With the index in its low bits no two keys are equal, and no library's order of equals
    # matters.
    keys = (magnitudes << 10) | torch.arange(BLOCK - 1, -1, -1)
    chosen = keys.topk(kept, 1, sorted=False).values
    return (BLOCK - 1 - (chosen & (BLOCK - 1))).sort(1).values


def split_indices(indices: NDArray[np.int64]) -> tuple[Bytes, Bytes]:
    """Return low bytes (K, k) and packed high bits (K, k / 4 rounded up) of ``indices`` (K, k)."""
    blocks, kept = indices.shape
    high = np.zeros((blocks, -(-kept // 4) * 4), np.uint8)
    high[:, :kept] = indices >> 8
    fours = high.reshape(blocks, -1, 4)
    packed = fours[..., 0] | fours[..., 1] << 2 | fours[..., 2] << 4 | fours[..., 3] << 6
    return (indices & 255).astype(np.uint8), packed


def read_entries(codes: Bytes, kept: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return indices, below 1024 whatever the bytes, and values (K, kept) of codes (K, block
    bytes)."""
    low, packed, words = np.split(codes, [kept, kept + -(-kept // 4)], axis=1)
    high = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    indices = low.astype(np.int64) | high.reshape(len(codes), -1)[:, :kept].astype(np.int64) << 8
    return indices, np.ascontiguousarray(words).view("<f2").astype(np.float32)
