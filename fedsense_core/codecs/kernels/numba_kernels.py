"""The numba kernels, each over a range of blocks. Importing this module needs numba.

Arrays: ``vector`` (N,) float32, ``starts``, ``counts``, ``rows`` (K,) int64, ``signs`` (T, 1024)
float32, ``codes`` (K, 128 bits) uint8, ``scales`` (K,) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import numba
import numpy as np

from fedsense_core.codecs.eden import CELLS_PER_UNIT, SEARCH_LIMIT
from fedsense_core.codecs.packing import GROUP
from fedsense_core.codecs.rotation import BLOCK, SIDE, SMALLEST_PEAK
from fedsense_core.codecs.viterbi import TAIL

LANES = 16
GROUPS = BLOCK // GROUP
LAST_CELL = 2 * SEARCH_LIMIT * CELLS_PER_UNIT - 1
# Every constant is a float32, because a Python number would make the arithmetic double.
F0, INFINITE = np.float32(0), np.float32(np.inf)
SIDE_F, BLOCK_F, SMALLEST_F = np.float32(SIDE), np.float32(BLOCK), np.float32(SMALLEST_PEAK)
CELLS_F, MIDDLE_F, LAST_F = np.float32(CELLS_PER_UNIT), np.float32(SEARCH_LIMIT * CELLS_PER_UNIT), np.float32(LAST_CELL)

# numba keeps a kernel's machine code until the file of that kernel changes, whatever the kernel
# calls or reads. So all kernels stand in one file, and it names the constants of other files.
if (BLOCK, SIDE, GROUP, SMALLEST_PEAK, TAIL, CELLS_PER_UNIT, SEARCH_LIMIT) != (1024, 32, 8, 2.0**-90, 64, 128, 8):
    raise RuntimeError("a constant of the codecs has changed: change it here too, or numba's cache stays as it was")

Kernel = Callable[..., Any]


def kernel(function: Kernel) -> Kernel:
    """Compile a kernel on first use; keep the machine code on disk where that works."""
    # Without the interpreter's lock, so that threads share the blocks; never with fastmath, which
    # fuses and reorders.
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return cast(Kernel, numba.njit(**options)(function))
    save = compiled._cache.save_overload

    def save_if_possible(*work: Any) -> None:
        with suppress(OSError):  # a full disk must not end an encoding
            save(*work)

    compiled._cache.save_overload = save_if_possible
    return cast(Kernel, compiled)


@kernel
def rotate(vector, start, count, sign, row, spare):
    """Leave y = H D_s x / peak in ``row``; return the peak."""
    for i in range(count):
        row[i] = vector[start + i]
    for i in range(count, BLOCK):
        row[i] = F0
    for j in range(LANES):
        spare[j] = F0
    for i in range(0, BLOCK, LANES):
        for j in range(LANES):
            size = abs(row[i + j])
            spare[j] = size if size > spare[j] else spare[j]
    peak = F0
    for j in range(LANES):
        peak = max(peak, spare[j])
    divisor = INFINITE if peak < SMALLEST_F else peak
    for i in range(BLOCK):
        row[i] = row[i] / divisor * sign[i]
    hadamard(row, spare)
    return peak


@kernel
def butterflies(row):
    """Combine elements of ``row`` at distances 32, 64, 128, 256 and 512, two steps in one pass
    where there are two."""
    for gap in (32, 128):
        for first in range(0, BLOCK, 4 * gap):
            part = row[first : first + 4 * gap]
            zero, one, two, three = part[:gap], part[gap : 2 * gap], part[2 * gap : 3 * gap], part[3 * gap :]
            for i in range(gap):
                a, b, c, d = zero[i] + one[i], zero[i] - one[i], two[i] + three[i], two[i] - three[i]
                zero[i], one[i], two[i], three[i] = a + c, b + d, a - c, b - d
    low, high = row[: BLOCK // 2], row[BLOCK // 2 :]
    for i in range(BLOCK // 2):
        a, b = low[i], high[i]
        low[i], high[i] = a + b, a - b


@kernel
def transpose(row, out):
    """Leave ``row``, as a 32 x 32 matrix, transposed in ``out``."""
    for i in range(SIDE):
        column = row[i::SIDE]
        for j in range(SIDE):
            out[i * SIDE + j] = column[j]


@kernel
def hadamard(row, spare):
    """Replace ``row`` by H times it, as two rounds of 32-point butterflies with a transposition
    after each."""
    butterflies(row)
    transpose(row, spare)
    butterflies(spare)
    transpose(spare, row)


@kernel
def row_sum(row):
    """Return the sum of ``row``, halving it again and again; overwrites it."""
    width = BLOCK
    while width > 1:
        width //= 2
        low, high = row[:width], row[width : 2 * width]
        for i in range(width):
            low[i] = low[i] + high[i]
    return row[0]


@kernel
def dot(a, b, spare):
    """Return <a, b>."""
    for i in range(BLOCK):
        spare[i] = a[i] * b[i]
    return row_sum(spare)


@kernel
def scale_of(y, q, energy, peak, unbiased, spare):
    """Return S for the values ``q`` that stand for ``y``."""
    product = dot(q, y, spare)
    if not product > F0:
        return F0
    ratio = energy / product if unbiased else product / dot(q, q, spare)
    return ratio / SIDE_F * peak


@kernel
def normalise(y, energy, z):
    """Leave y / rms in ``z``."""
    rms = np.sqrt(energy / BLOCK_F)
    divisor = rms if rms > F0 else INFINITE
    for i in range(BLOCK):
        z[i] = y[i] / divisor


@kernel
def finish(row, spare, scale, sign, vector, start, count):
    """Write D_s H (S q) / sqrt(B) of the values in ``row`` to ``vector``."""
    out = vector[start : start + count]
    if scale == F0:
        for i in range(count):
            out[i] = F0
        return
    hadamard(row, spare)
    factor = scale / SIDE_F
    for i in range(count):
        out[i] = row[i] * factor * sign[i]


@kernel
def pack(wide, bits, packed):
    """Pack 1024 codes into 128 ``bits`` bytes."""
    for group in range(GROUPS):
        word = np.uint64(0)
        for i in range(GROUP):
            word = (word << np.uint64(bits)) | np.uint64(wide[group * GROUP + i])
        for i in range(bits):
            packed[group * bits + i] = np.uint8((word >> np.uint64(8 * (bits - 1 - i))) & np.uint64(255))


@kernel
def eden_encode(low, high, vector, starts, counts, rows, signs, levels, borders, cells, unbiased, codes, scales):
    """Encode blocks ``low`` to ``high``."""
    bits = codes.shape[1] // GROUPS
    y, z = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    q, spare = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    wide = np.empty(BLOCK, np.uint32)  # unsigned: a signed index costs a test for counting from the end
    for k in range(low, high):
        peak = rotate(vector, starts[k], counts[k], signs[rows[k]], y, spare)
        energy = dot(y, y, spare)
        normalise(y, energy, z)
        if bits == 1:
            for i in range(BLOCK):
                wide[i] = z[i] > borders[0]
        else:
            for i in range(BLOCK):
                cell = min(max(z[i] * CELLS_F + MIDDLE_F, F0), LAST_F)
                lower = np.uint32(cells[np.uint32(cell)])
                wide[i] = lower + np.uint32(z[i] > borders[lower])
        for i in range(BLOCK):
            q[i] = levels[wide[i]]
        scales[k] = scale_of(y, q, energy, peak, unbiased, spare)
        pack(wide, bits, codes[k])


@kernel
def eden_decode(low, high, vector, starts, counts, rows, signs, levels, codes, scales):
    """Decode blocks ``low`` to ``high``."""
    bits = codes.shape[1] // GROUPS
    mask = np.uint64((1 << bits) - 1)
    row, spare = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for k in range(low, high):
        for group in range(GROUPS):
            word = np.uint64(0)
            for i in range(bits):
                word = (word << np.uint64(8)) | np.uint64(codes[k, group * bits + i])
            for i in range(GROUP):
                row[group * GROUP + i] = levels[(word >> np.uint64(bits * (GROUP - 1 - i))) & mask]
        finish(row, spare, scales[k], signs[rows[k]], vector, starts[k], counts[k])


@kernel
def best_of_two(costs, half, best, choice):
    """Leave the least cost and its number among two rows of ``costs``; the first of equals."""
    first, second = costs[:half], costs[half:]
    for h in range(half):
        better = second[h] < first[h]
        choice[h] = better
        best[h] = second[h] if better else first[h]


@kernel
def best_of_four(costs, row, half, best, choice):
    """The same among rows ``row`` to ``row`` + 3, and what earlier rows have left if ``row`` is
    above 0."""
    rows = costs[row * half : (row + 4) * half]
    zero, one, two, three = rows[:half], rows[half : 2 * half], rows[2 * half : 3 * half], rows[3 * half :]
    for h in range(half):
        a, b, c, d = zero[h], one[h], two[h], three[h]
        second, fourth = b < a, d < c
        low, high = b if second else a, d if fourth else c
        upper = high < low
        least = high if upper else low
        number = row + (2 + fourth if upper else np.int64(second))
        better = row == 0 or least < best[h]
        choice[h] = number if better else choice[h]
        best[h] = least if better else best[h]


@kernel
def forward(z, branches, values, costs, best, spread, choices):
    """Run the Viterbi recursion over ``z`` (T,), from and to ``costs`` (S,); leave the choices (T,
    H).

    Two and four branches are written out, because only then the compiler makes vector code of the
    interleaved stores.
    """
    fan, half = branches.shape
    for t in range(len(z)):
        x, choice = z[t], choices[t]
        if fan == 2:
            best_of_two(costs, half, best, choice)
            zero, one = branches[0], branches[1]
            for h in range(half):
                a, b = zero[h] - x, one[h] - x
                costs[2 * h] = best[h] + a * a
                costs[2 * h + 1] = best[h] + b * b
            continue
        for row in range(0, fan, 4):
            best_of_four(costs, row, half, best, choice)
        if fan == 4:
            zero, one, two, three = branches[0], branches[1], branches[2], branches[3]
            for h in range(half):
                a, b, c, d = zero[h] - x, one[h] - x, two[h] - x, three[h] - x
                costs[4 * h] = best[h] + a * a
                costs[4 * h + 1] = best[h] + b * b
                costs[4 * h + 2] = best[h] + c * c
                costs[4 * h + 3] = best[h] + d * d
            continue
        for h in range(half):
            for c in range(fan):
                spread[h * fan + c] = best[h]
        for s in range(fan * half):
            a = values[s] - x
            costs[s] = spread[s] + a * a


@kernel
def trellis_encode(low, high, vector, starts, counts, rows, signs, values, branches, bits, unbiased, codes, scales):
    """Encode blocks ``low`` to ``high``: Viterbi over the tail for the state in which the circle
    closes, then over all."""
    states, half = len(values), branches.shape[1]
    shift, mask = np.int64(0), np.int64((1 << bits) - 1)
    while half >> (shift + 1):
        shift += 1
    y, z = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    q, spare = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    tail = np.empty(2 * TAIL, np.float32)
    costs, spread, best = np.empty(states, np.float32), np.empty(states, np.float32), np.empty(half, np.float32)
    choices = np.empty((BLOCK, half), np.uint8)
    wide = np.empty(BLOCK, np.uint32)
    for k in range(low, high):
        peak = rotate(vector, starts[k], counts[k], signs[rows[k]], y, spare)
        energy = dot(y, y, spare)
        normalise(y, energy, z)
        tail[:TAIL] = z[BLOCK - TAIL :]
        tail[TAIL:] = z[:TAIL]
        costs[:] = F0
        forward(tail, branches, values, costs, best, spread, choices)
        state = np.int64(np.argmin(costs))
        for t in range(2 * TAIL - 1, TAIL - 1, -1):
            h = state >> bits
            state = h | (np.int64(choices[t, h]) << shift)
        costs[:] = INFINITE
        costs[state] = F0
        forward(z, branches, values, costs, best, spread, choices)
        for t in range(BLOCK - 1, -1, -1):
            q[t] = values[state]
            wide[t] = state & mask
            h = state >> bits
            state = h | (np.int64(choices[t, h]) << shift)
        scales[k] = scale_of(y, q, energy, peak, unbiased, spare)
        pack(wide, bits, codes[k])


@kernel
def trellis_decode(low, high, vector, starts, counts, rows, signs, values, bits, codes, scales):
    """Decode blocks ``low`` to ``high``: slide a window of the state's bits over the code
    string."""
    mask = np.uint64(len(values) - 1)
    row, spare = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for k in range(low, high):
        word = np.uint64(0)
        for i in range(codes.shape[1] - 4, codes.shape[1]):
            word = (word << np.uint64(8)) | np.uint64(codes[k, i])
        for group in range(GROUPS):
            for i in range(bits):
                word = (word << np.uint64(8)) | np.uint64(codes[k, group * bits + i])
            for i in range(GROUP):
                row[group * GROUP + i] = values[(word >> np.uint64(bits * (GROUP - 1 - i))) & mask]
        finish(row, spare, scales[k], signs[rows[k]], vector, starts[k], counts[k])
