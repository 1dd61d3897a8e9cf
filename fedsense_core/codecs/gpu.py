"""EDEN's encoder as one Triton kernel: a block is read once, coded in registers, and only codes and
a scale are written.

The operations and their order are those of the plain torch code, so that the bits are too: no
multiplication may be fused with an addition (``enable_fp_fusion``), and divisions and roots are the
correctly rounded ones. torch's builds for CUDA on Linux bring Triton; without it, and for all else,
plain torch does the work on the GPU.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fedsense_core.codecs.codebooks import CELLS_PER_UNIT, SEARCH_LIMIT, Codebook
from fedsense_core.codecs.compiled import SWITCH
from fedsense_core.codecs.hadamard import BLOCK, SIDE
from fedsense_core.codecs.layout import Places
from fedsense_core.codecs.packing import PLANE_BYTES
from fedsense_core.codecs.rotation import SMALLEST_PEAK


def can_encode(source: Tensor) -> bool:
    """Tell whether the kernel can read ``source``: float32, in one piece, on a GPU."""
    usable = source.is_cuda and source.dtype == torch.float32 and source.is_contiguous()
    return usable and os.environ.get(SWITCH, "1") != "0" and _kernels() is not None


def encode_eden(source: Tensor, places: Places, book: Codebook, bits: int, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Return the codes, uint8 (K, 128 bits), and scales, float32 (K,), of the blocks in ``places``,
    where they are."""
    blocks, device = len(places.starts_K), source.device
    codes = torch.empty(blocks, PLANE_BYTES * bits, dtype=torch.uint8, device=device)
    scales_K = torch.empty(blocks, dtype=torch.float32, device=device)
    here = book.on(device)
    arrays = (places.starts_K, places.counts_K, places.rows_K, places.signs_TB)
    _kernels().eden_encode[(blocks,)](
        source,
        *(array.to(device) for array in arrays),
        here.levels,
        here.borders,
        here.first_codes,
        codes,
        scales_K,
        BITS=bits,
        UNBIASED=unbiased,
        BLOCK=BLOCK,
        SIDE=SIDE,
        SMALLEST_PEAK=SMALLEST_PEAK,
        CELLS=CELLS_PER_UNIT,
        MIDDLE=SEARCH_LIMIT * CELLS_PER_UNIT,
        enable_fp_fusion=False,
    )
    return codes, scales_K


@cache
def _kernels() -> Any:
    """Import the kernels when they are first needed."""
    try:
        from fedsense_core.codecs import kernels
    except ImportError:  # torch without CUDA has no Triton
        return None
    return kernels
