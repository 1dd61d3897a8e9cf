"""Compiled loops for rotated codecs on the CPU, used where numba is installed (``pip install
".[fast]"``).

Each loop does to one block, in the core's cache, exactly what the plain torch code does to many:
the same operations in the same order, none fused, so that both give the same bits. Python threads,
as many as torch uses, share the blocks: numba's own parallel loops cannot be entered by two threads
at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.codebooks import Codebook
from fedsense_core.codecs.hadamard import BLOCK
from fedsense_core.codecs.layout import Places
from fedsense_core.codecs.trellis_books import TrellisBook
from fedsense_core.codecs.viterbi import MAX_CHOICES

SWITCH = "FEDSENSE_COMPILED"
"""Environment variable: ``0`` keeps to plain torch."""
BLOCKS_PER_TURN = 64
"""Blocks that a thread takes at a time: short enough to share work evenly, long enough to hide
Python."""

Bytes = NDArray[np.uint8]


def is_available() -> bool:
    """Tell whether the compiled loops can be used in this process."""
    return os.environ.get(SWITCH, "1") != "0" and _loops() is not None


@cache
def _loops() -> Any:
    """Import the loops when they are first needed: numba takes a second, and many processes never
    code anything."""
    try:
        from fedsense_core.codecs import loops
    except (ImportError, OSError):  # numba is an optional dependency, and its library may not load
        return None
    return loops


def can_encode(source: Tensor) -> bool:
    """Tell whether a compiled loop can read ``source``: float32, in one piece, on the CPU."""
    return is_available() and source.device.type == "cpu" and source.dtype == torch.float32 and source.is_contiguous()


def can_decode(out: Tensor) -> bool:
    """Tell whether a compiled loop can write ``out``."""
    return can_encode(out)


def encode_eden(source: Tensor, places: Places, book: Codebook, unbiased: bool, codes: Bytes, scales_K: Tensor) -> None:
    """Write codes (K, 128 b) and scales (K,) of the blocks in ``places``."""
    arrays = *_arrays(source, places), book.levels.numpy(), book.borders.numpy(), book.first_codes.numpy()
    scales = scales_K.numpy()
    _share(len(codes), lambda low, high: _loops().eden_encode(low, high, *arrays, unbiased, codes, scales))


def decode_eden(codes: Bytes, scales_K: Tensor, places: Places, book: Codebook, out: Tensor) -> None:
    """Write the decoded blocks in ``places`` to ``out`` (N,)."""
    arrays = *_arrays(out, places), book.levels.numpy()
    scales = scales_K.numpy()
    _share(len(codes), lambda low, high: _loops().eden_decode(low, high, *arrays, codes, scales))


def encode_trellis(
    source: Tensor, places: Places, book: TrellisBook, unbiased: bool, codes: Bytes, scales_K: Tensor
) -> None:
    """Write codes (K, 128 b) and scales (K,) of the blocks in ``places``."""
    arrays = *_arrays(source, places), book.values_S.numpy(), book.branches_CH.numpy()
    rest = book.bits, unbiased, codes, scales_K.numpy()
    most = max(1, MAX_CHOICES // (BLOCK * book.branches_CH.shape[1]))  # each thread holds the choices of one block
    _share(len(codes), lambda low, high: _loops().trellis_encode(low, high, *arrays, *rest), most)


def decode_trellis(codes: Bytes, scales_K: Tensor, places: Places, book: TrellisBook, out: Tensor) -> None:
    """Write the decoded blocks in ``places`` to ``out`` (N,)."""
    arrays = *_arrays(out, places), book.values_S.numpy()
    scales = scales_K.numpy()
    _share(len(codes), lambda low, high: _loops().trellis_decode(low, high, *arrays, book.bits, codes, scales))


def _arrays(vector: Tensor, places: Places) -> tuple[NDArray[np.generic], ...]:
    return (
        vector.numpy(),
        places.starts_K.numpy(),
        places.counts_K.numpy(),
        places.rows_K.numpy(),
        places.signs_TB.numpy(),
    )


def _share(blocks: int, work: Callable[[int, int], None], most: int = 1024) -> None:
    """Call ``work`` on ranges that cover ``blocks``, in as many threads as torch uses, but at
    ``most`` so many."""
    turns = [(low, min(low + BLOCKS_PER_TURN, blocks)) for low in range(0, blocks, BLOCKS_PER_TURN)]
    threads = min(torch.get_num_threads(), most)
    if threads <= 1 or len(turns) <= 1:
        for low, high in turns:
            work(low, high)
        return
    for _ in _pool(threads).map(lambda turn: work(*turn), turns):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fedsense-codec")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has the pool but none of its threads
