"""The kernels behind ``gpu.py``. Importing this module needs Triton. One program codes one
block."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def butterfly(x, GAP: tl.constexpr, BLOCK: tl.constexpr):
    """Return sums and differences of the elements of ``x`` that lie GAP apart, in their places."""
    pairs = tl.permute(tl.reshape(x, (BLOCK // (2 * GAP), 2, GAP)), (0, 2, 1))
    a, b = tl.split(pairs)
    return tl.reshape(tl.permute(tl.join(a + b, a - b), (0, 2, 1)), (BLOCK,))


@triton.jit
def rotated(x, BLOCK: tl.constexpr):
    """Return H x, with the steps in the order of ``hadamard_``."""
    x = butterfly(x, 32, BLOCK)
    x = butterfly(x, 64, BLOCK)
    x = butterfly(x, 128, BLOCK)
    x = butterfly(x, 256, BLOCK)
    x = butterfly(x, 512, BLOCK)
    x = butterfly(x, 1, BLOCK)
    x = butterfly(x, 2, BLOCK)
    x = butterfly(x, 4, BLOCK)
    x = butterfly(x, 8, BLOCK)
    return butterfly(x, 16, BLOCK)


@triton.jit
def half_sums(x, WIDTH: tl.constexpr):
    """Return the lower half of ``x`` (2 WIDTH,) plus its upper half."""
    a, b = tl.split(tl.permute(tl.reshape(x, (2, WIDTH)), (1, 0)))
    return a + b


@triton.jit
def row_sum(x):
    """Return the sum of ``x`` (1024,), halving it again and again."""
    x = half_sums(half_sums(half_sums(half_sums(half_sums(x, 512), 256), 128), 64), 32)
    x = half_sums(half_sums(half_sums(half_sums(half_sums(x, 16), 8), 4), 2), 1)
    return tl.sum(x, 0)


@triton.jit
def eden_encode(
    source,
    starts,
    counts,
    rows,
    signs,
    levels,
    borders,
    cells,
    codes,
    scales,
    BITS: tl.constexpr,
    UNBIASED: tl.constexpr,
    BLOCK: tl.constexpr,
    SIDE: tl.constexpr,
    SMALLEST_PEAK: tl.constexpr,
    CELLS: tl.constexpr,
    MIDDLE: tl.constexpr,
):
    """Code the block with the program's number."""
    block = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    x = tl.load(source + tl.load(starts + block) + index, mask=index < tl.load(counts + block), other=0.0)
    peak = tl.max(tl.abs(x), 0)
    divisor = tl.where(peak < SMALLEST_PEAK, float("inf"), peak)
    sign = tl.load(signs + tl.load(rows + block) * BLOCK + index)
    y = rotated(tl.div_rn(x, tl.zeros_like(x) + divisor) * sign, BLOCK)
    energy = row_sum(y * y)
    rms = tl.sqrt_rn(energy / BLOCK)
    z = tl.div_rn(y, tl.zeros_like(y) + tl.where(rms > 0, rms, float("inf")))
    cell = tl.minimum(tl.maximum(z * CELLS + MIDDLE, 0.0), 2.0 * MIDDLE - 1.0).to(tl.int32)
    lower = tl.load(cells + cell)
    code = lower + (z > tl.load(borders + lower)).to(tl.int32)
    q = tl.load(levels + code)
    product = row_sum(q * y)
    if UNBIASED:  # noqa: SIM108 - decided when the kernel is compiled
        ratio = tl.div_rn(energy, product)
    else:
        ratio = tl.div_rn(product, row_sum(q * q))
    tl.store(scales + block, tl.where(product > 0, ratio / SIDE * peak, 0.0))
    place = tl.arange(0, 8)
    word = tl.sum(tl.reshape(code, (BLOCK // 8, 8)).to(tl.int64) << (BITS * (7 - place))[None, :], 1)
    group = tl.arange(0, BLOCK // 8)
    for i in tl.static_range(BITS):
        octet = (word >> (8 * (BITS - 1 - i))) & 255
        tl.store(codes + (block * (BLOCK // 8) + group) * BITS + i, octet.to(tl.uint8))
