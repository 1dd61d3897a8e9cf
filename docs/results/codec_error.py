"""Print how far a decoded vector lies from the encoded one, as a Markdown table for docs/results.md.

Normalised mean squared error |x - decode(encode(x))|^2 / |x|^2 over several seeds, beside the codec's target and 2^-2b,
the least error that any code of b bits a sample can have on normal numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsense_core.codecs import Codec, get_codec
from fedsense_core.tensors import TensorTable

TARGETS = {1: 0.3634, 2: 0.1175, 3: 0.0345, 4: 0.0095}
"""Least error of a scalar codec on normal numbers (Max 1960); at 1 bit without bias it is pi / 2 - 1."""
UNBIASED_TARGETS = {1: 0.5708}
TABLE = TensorTable.from_shapes({f"layer{i}.weight": (128, 256) for i in range(8)})
"""What the synthetic vectors stand for: eight layers of 32 blocks."""

Draw = Callable[[np.random.Generator, int], np.ndarray]


def layer_scaled(generator: np.random.Generator, size: int) -> np.ndarray:
    """Draw normal numbers whose scale differs from layer to layer, by up to a factor of 1,000."""
    scales = np.repeat(10.0 ** generator.uniform(-3, 0, len(TABLE)), size // len(TABLE))
    return generator.standard_normal(size) * scales


def sparse(generator: np.random.Generator, size: int) -> np.ndarray:
    """Draw numbers of which about three in a block are not zero: the hardest input for one bit."""
    return generator.standard_normal(size) * (generator.random(size) < 3 / 1024)


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda generator, size: generator.standard_normal(size),
    "Laplace": lambda generator, size: generator.laplace(size=size),
    "Student t(3)": lambda generator, size: generator.standard_t(3, size),
    "layer-scaled": layer_scaled,
    "sparse": sparse,
}


def vectors(draw: Draw, rms: float, seeds: int) -> Iterator[tuple[int, Tensor]]:
    """Yield ``seeds`` pairs of a codec seed and a float32 vector of the given root mean square."""
    for seed in range(seeds):
        values = draw(np.random.default_rng(seed), TABLE.numel)
        yield seed, torch.from_numpy(values * (rms / np.sqrt(np.mean(values**2)))).float()


def normalised_error(codec: Codec, vector: Tensor, table: TensorTable, seed: int, unbiased: bool) -> float:
    """Return |x - decode(encode(x))|^2 / |x|^2, summed in float64."""
    decoded = codec.decode(codec.encode(vector, table, seed, unbiased=unbiased), table, seed)
    error = (decoded.double() - vector.double()).square().sum() / vector.double().square().sum()
    return float(error)


def codecs() -> Iterator[tuple[Codec, bool]]:
    """Yield every codec with and, where there is a choice, without bias."""
    yield get_codec("bf16", 16), False
    for bits in (1, 2, 3, 4, 8):
        yield get_codec("eden", bits), False
        yield get_codec("eden", bits), True


def row(codec: Codec, unbiased: bool, source: str, errors: list[float]) -> str:
    """Return one line of the table."""
    target = (UNBIASED_TARGETS if unbiased else TARGETS).get(codec.bits)
    columns = [
        codec.name,
        str(codec.bits),
        "" if codec.name == "bf16" else ("unbiased" if unbiased else "least error"),
        source,
        f"{np.mean(errors):.4g} ± {np.std(errors):.1g}",
        f"{target:.4f}" if target else "",
        f"{(np.mean(errors) / target - 1) * 100:+.1f} %" if target else "",
        f"{4.0**-codec.bits:.4g}",
    ]
    return f"| {' | '.join(columns)} |"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="vectors for each distribution (default: 5)")
    parser.add_argument("--rms", type=float, default=1e-3, help="root mean square of the vectors (default: 1e-3)")
    parser.add_argument("--update", type=Path, help="a real update: .npy file with one row of float32 or float64")
    return parser.parse_args()


def read_update(path: Path) -> tuple[Tensor, TensorTable]:
    """Return the update in ``path`` (N,) and a table that takes it for one matrix."""
    vector = torch.from_numpy(np.load(path, allow_pickle=False))
    if vector.ndim != 1 or vector.numel() < 1024:
        raise SystemExit(f"{path}: expected one row of at least 1024 numbers, found shape {tuple(vector.shape)}")
    return vector, TensorTable.from_shapes({"update": (1, vector.numel())})


def main() -> None:
    """Measure every codec on every distribution, and on a real update where one is given."""
    options = arguments()
    print("| codec | bits | scale | input | error ± deviation over seeds | target | above target | 2^-2b |")
    print("|---|---|---|---|---|---|---|---|")
    for codec, unbiased in codecs():
        for name, draw in DISTRIBUTIONS.items():
            pairs = vectors(draw, options.rms, options.seeds)
            print(row(codec, unbiased, name, [normalised_error(codec, x, TABLE, s, unbiased) for s, x in pairs]))
        if options.update:
            x, table = read_update(options.update)
            errors = [normalised_error(codec, x, table, s, unbiased) for s in range(options.seeds)]
            print(row(codec, unbiased, options.update.stem, errors))


if __name__ == "__main__":
    main()
