"""Refine the trellis codec's tables on normal numbers, and write
``fedsense_core/codecs/trellis_codebooks.py`` anew.

A table starts as the quantiles of the normal distribution in random order. In each turn a fresh
sample is coded with it, each state's value moves to the mean of the numbers that chose it (Lloyd
1982), and noise that fades out over the first half of the turns helps it out of poor minima. The
complement of a state always stands for the negative value. The best of several starts counts,
judged on numbers that no table was refined on. Needs numba. Takes half an hour on one core; a table
whose file is in ``OUT`` is not refined again.

    python docs/experiments/train_trellis.py OUT            # refine what is missing, print
    python docs/experiments/train_trellis.py OUT --write    # and write the module
"""

from __future__ import annotations

import argparse
import base64
import textwrap
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fedsense_core.codecs import trellis_codebooks
from fedsense_core.codecs.kernels.numba_kernels import forward
from fedsense_core.codecs.viterbi import TAIL

Floats = NDArray[np.float32]
SIZES = {8: (256, 24, 150), 10: (384, 3, 120), 12: (1024, 1, 90)}
"""Blocks in a sample, starts, and turns, by state bits. At 8 state bits and 4 bits there are 12
starts."""
LARGEST_NOISE = 0.08
NOISY_STATE_BITS = 10
"""Larger tables are refined without noise: their values lie closer together than it."""


@numba.njit(nogil=True)
def choose(x_KB: Floats, values: Floats, branches: Floats, bits: int, states_KB: NDArray[np.uint16]) -> None:
    """Write the state that the codec's search chooses for every number."""
    fan, half = branches.shape
    size, shift = fan * half, np.int64(np.log2(fan * half)) - bits
    costs, best, spread = np.empty(size, np.float32), np.empty(half, np.float32), np.empty(size, np.float32)
    choices, tail = np.empty((x_KB.shape[1], half), np.uint8), np.empty(2 * TAIL, np.float32)
    for k in range(len(x_KB)):
        tail[:TAIL], tail[TAIL:] = x_KB[k, -TAIL:], x_KB[k, :TAIL]
        costs[:] = 0
        forward(tail, branches, values, costs, best, spread, choices)
        state = np.int64(np.argmin(costs))
        for t in range(2 * TAIL - 1, TAIL - 1, -1):
            state = (state >> bits) | (np.int64(choices[t, state >> bits]) << shift)
        costs[:] = np.inf
        costs[state] = 0
        forward(x_KB[k], branches, values, costs, best, spread, choices)
        for t in range(x_KB.shape[1] - 1, -1, -1):
            states_KB[k, t] = state
            state = (state >> bits) | (np.int64(choices[t, state >> bits]) << shift)


def states_of(x_KB: Floats, values: Floats, bits: int) -> NDArray[np.uint16]:
    """Return the chosen states (K, 1024)."""
    states_KB = np.empty(x_KB.shape, np.uint16)
    choose(x_KB, values, np.ascontiguousarray(values.reshape(-1, 1 << bits).T), bits, states_KB)
    return states_KB


def error(x_KB: Floats, values: Floats, bits: int) -> float:
    """Return the normalised squared error with the best scale for each block."""
    q, x = values[states_of(x_KB, values, bits)].astype(np.float64), x_KB.astype(np.float64)
    scale = (q * x).sum(1, keepdims=True) / (q * q).sum(1, keepdims=True)
    return float(((scale * q - x) ** 2).sum() / (x**2).sum())


def refine(state_bits: int, bits: int, seed: int, blocks: int, turns: int) -> Floats:
    """Return the values of one start after all turns, as the fp16 numbers that will be stored."""
    size, rng = 1 << state_bits, np.random.default_rng(seed)
    upper = norm.ppf((np.arange(size) + 0.5) / size)[size // 2 :]
    half = rng.permutation(upper) * rng.choice([-1, 1], size // 2)
    values = np.concatenate([half, -half[::-1]]).astype(np.float32)
    for turn in range(turns):
        x_KB = rng.standard_normal((blocks, 1024)).astype(np.float32)
        states = states_of(x_KB, values, bits).ravel()
        sums, counts = np.bincount(states, x_KB.ravel(), size), np.bincount(states, minlength=size)
        sums, counts = sums - sums[::-1], counts + counts[::-1]
        means = np.where(counts > 0, sums / np.maximum(counts, 1), values)
        values = (values + (1.0 if turn < turns // 2 else 0.5) * (means - values)).astype(np.float32)
        noise = LARGEST_NOISE * max(0, 1 - turn / (turns * 0.5))
        if noise and state_bits <= NOISY_STATE_BITS:
            push = rng.standard_normal(size // 2) * noise
            values += np.concatenate([push, -push[::-1]]).astype(np.float32)
    return values.astype(np.float16).astype(np.float32)


def best_of(state_bits: int, bits: int, test_KB: Floats) -> Floats:
    """Return the best table of all starts."""
    blocks, starts, turns = SIZES[state_bits]
    starts = 12 if (state_bits, bits) == (8, 4) else starts
    found = [refine(state_bits, bits, seed, blocks, turns) for seed in range(starts)]
    errors = [error(test_KB, values, bits) for values in found]
    print(f"L = {state_bits}, b = {bits}: {min(errors):.5f}, starts {min(errors):.5f} to {max(errors):.5f}", flush=True)
    return found[int(np.argmin(errors))]


def write_module(tables: dict[tuple[int, int], Floats]) -> None:
    """Put the tables into the module, between the marks that keep the formatter away."""
    path = Path(trellis_codebooks.__file__)
    before, rest = path.read_text(encoding="utf-8").split("= {\n", 1)
    after = rest.split("\n}\n", 1)[1]
    lines = []
    for (state_bits, bits), values in tables.items():
        text = base64.b64encode(values[: len(values) // 2].astype("<f2").tobytes()).decode()
        lines += [
            f"    ({state_bits}, {bits}): (",
            *(f'        "{line}"' for line in textwrap.wrap(text, 110)),
            "    ),",
        ]
    path.write_text(before + "= {\n" + "\n".join(lines) + "\n}\n" + after, encoding="utf-8")


def main() -> None:
    """Refine what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for finished tables")
    parser.add_argument("--write", action="store_true", help="write the module")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    test_KB = np.random.default_rng(10**6).standard_normal((512, 1024)).astype(np.float32)
    tables = {}
    for state_bits in SIZES:
        for bits in (1, 2, 3, 4):
            path = options.out / f"book_{state_bits}_{bits}.npy"
            if not path.exists():
                np.save(path, best_of(state_bits, bits, test_KB))
            tables[state_bits, bits] = np.load(path, allow_pickle=False)
    if options.write:
        write_module(tables)


if __name__ == "__main__":
    main()
