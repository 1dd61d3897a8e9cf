"""Runs the numba kernels of the rotated codecs on the CPU, where numba is installed (``pip install
".[fast]"``).

Each kernel does to one block, in the core's cache, exactly what the plain torch code does to many:
the same operations in the same order, none fused, so that both give the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.codecs.block_format import Run
from fedsense_core.codecs.rotation import BLOCK, signs
from fedsense_core.codecs.trellis_codebooks import TrellisCodebook
from fedsense_core.codecs.viterbi import MAX_CHOICES

if TYPE_CHECKING:  # which runs its kernels through this module
    from fedsense_core.codecs.eden import Codebook

SWITCH = "FEDSENSE_NUMBA"
"""Environment variable: ``0`` keeps to plain torch."""
BLOCKS_PER_TURN = 64
"""Blocks that a thread works on at a time: short enough to share work evenly, long enough to hide
Python."""


def is_available() -> bool:
    """Tell whether the kernels can be used in this process."""
    return os.environ.get(SWITCH, "1") != "0" and _kernels() is not None


@cache
def _kernels() -> Any:
    # When they are first needed: numba takes a second, and many processes never code anything.
    try:
        from fedsense_core.codecs.kernels import numba_kernels
    except (ImportError, OSError):  # numba is an optional dependency, and its library may not load
        return None
    return numba_kernels


def can_run(vector: Tensor) -> bool:
    """Tell whether a kernel can read or write ``vector``: float32, in one piece, on the CPU."""
    return is_available() and vector.device.type == "cpu" and vector.dtype == torch.float32 and vector.is_contiguous()


def encode_eden(vector: Tensor, run: Run, book: Codebook, unbiased: bool) -> None:
    """Write codes and scales of the blocks of ``run``, which lie in ``vector`` (N,)."""
    arrays = *_arrays(vector, run), book.levels.numpy(), book.borders.numpy(), book.first_codes.numpy()
    rest = unbiased, run.codes, run.scales_K.numpy()
    _share(len(run.codes), lambda low, high: _kernels().eden_encode(low, high, *arrays, *rest))


def decode_eden(run: Run, book: Codebook, out: Tensor) -> None:
    """Write the decoded blocks of ``run`` to ``out`` (N,)."""
    arrays = *_arrays(out, run), book.levels.numpy(), run.codes, run.scales_K.numpy()
    _share(len(run.codes), lambda low, high: _kernels().eden_decode(low, high, *arrays))


def encode_trellis(vector: Tensor, run: Run, book: TrellisCodebook, unbiased: bool) -> None:
    """Write codes and scales of the blocks of ``run``, which lie in ``vector`` (N,)."""
    arrays = *_arrays(vector, run), book.values_S.numpy(), book.branches_CH.numpy()
    rest = book.bits, unbiased, run.codes, run.scales_K.numpy()
    most = max(1, MAX_CHOICES // (BLOCK * book.branches_CH.shape[1]))  # each thread holds the choices of one block
    _share(len(run.codes), lambda low, high: _kernels().trellis_encode(low, high, *arrays, *rest), most)


def decode_trellis(run: Run, book: TrellisCodebook, out: Tensor) -> None:
    """Write the decoded blocks of ``run`` to ``out`` (N,)."""
    arrays = *_arrays(out, run), book.values_S.numpy(), book.bits, run.codes, run.scales_K.numpy()
    _share(len(run.codes), lambda low, high: _kernels().trellis_decode(low, high, *arrays))


def _arrays(vector: Tensor, run: Run) -> tuple[NDArray[np.generic], ...]:
    """Return ``vector`` (N,); by block of ``run`` its first element, its number of elements without
    the filling, and its row of signs, int64 (K,); and the signs of D_s of each tensor, float32 (T,
    1024)."""
    starts: list[Tensor] = []
    counts: list[Tensor] = []
    rows: list[Tensor] = []
    drawn: list[Tensor] = []
    for coded in run.layout.coded:
        low, high = max(run.blocks.start, coded.blocks.start), min(run.blocks.stop, coded.blocks.stop)
        if low >= high:
            continue
        first = torch.arange(low - coded.blocks.start, high - coded.blocks.start) * BLOCK
        starts.append(first + coded.spec.offset)
        counts.append((coded.spec.numel - first).clamp_(max=BLOCK))
        rows.append(torch.full((high - low,), len(drawn)))
        drawn.append(signs(run.seed, coded.tensor))
    by_block = (torch.cat(parts).numpy() for parts in (starts, counts, rows))
    return vector.numpy(), *by_block, torch.stack(drawn).numpy()


def _share(blocks: int, work: Callable[[int, int], None], most: int = 1024) -> None:
    """Call ``work`` on ranges that cover ``blocks``, in as many threads as torch uses, but at
    ``most`` so many."""
    turns = [(low, min(low + BLOCKS_PER_TURN, blocks)) for low in range(0, blocks, BLOCKS_PER_TURN)]
    threads = min(torch.get_num_threads(), most)
    if threads <= 1 or len(turns) <= 1:
        for low, high in turns:
            work(low, high)
        return
    # Python threads: numba's own parallel loops cannot be entered by two threads at once.
    for _ in _pool(threads).map(lambda turn: work(*turn), turns):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="fedsense-codec")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has the pool but none of its threads
