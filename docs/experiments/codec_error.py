"""Print how far a decoded vector lies from the encoded one, codec by codec, and plot error against
bits for docs/codec.md.

Normalised mean squared error |x - decode(encode(x))|^2 / |x|^2 over several seeds, beside 2^-2R,
the least error that any code of R bits a number can have on independent normal numbers. R counts
the whole payload: codes, scales, and the fp16 numbers of small tensors. Inputs are drawn from four
distributions; ``--real`` adds the update of one round of real local training on the shipped
imagery, with the network and the settings of ``flower.toml``.

    python docs/experiments/codec_error.py --real --plot docs/results/rate_distortion.png

Quantizers of other packages are measured where they are installed: bitsandbytes (``pip install
bitsandbytes``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from client_app.training import Start, train_locally
from fedsense_core.codecs.codec import Codec, every_codec
from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.trellis import Trellis
from fedsense_core.config import resolve
from fedsense_core.data.batches.feeding import batches_of
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_sites
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({f"layer{i}.weight": (128, 256) for i in range(8)})
"""What the synthetic vectors stand for: eight layers of 32 blocks."""
PLOTTED = ("normal", "real update")
HIDDEN = ("unbiased", "water-filling", "bf16")
"""Families that lie on others in the plot, or outside it."""
OWN_COLOURS = {
    "eden": "tab:blue",
    "trellis, L = 8": "tab:orange",
    "trellis, L = 10": "tab:red",
    "trellis, L = 12": "tab:purple",
}

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


@dataclass(frozen=True)
class Subject:
    """Something that turns a vector into bytes and back."""

    label: str
    family: str
    round_trip: Callable[[Tensor, TensorTable, int], tuple[Tensor, float]]
    """(vector, table, seed) to (decoded vector, bits a number)."""


def subject_of(codec: Codec, *, unbiased: bool = False) -> Subject:
    """Return a codec of FedSense as a subject."""

    def round_trip(vector: Tensor, table: TensorTable, seed: int) -> tuple[Tensor, float]:
        payload = codec.encode(vector, table, seed, unbiased=unbiased)
        return codec.decode(payload, table, seed), 8 * len(payload) / table.numel

    family = codec.name
    if isinstance(codec, Trellis):
        family = f"trellis, L = {codec.state_bits}"
    if codec.waterfill:
        family += ", water-filling"
    if unbiased:
        family += ", unbiased"
    return Subject(f"{family}, {codec.bits} bit", family, round_trip)


def subjects() -> Iterator[Subject]:
    """Yield every codec, the variants of our own, and what other packages offer."""
    for codec in every_codec():
        if codec.bits < 32 and not codec.waterfill:
            yield subject_of(codec)
    for bits in (1, 2, 4):
        yield subject_of(Eden(bits), unbiased=True)
        yield subject_of(Trellis(bits), unbiased=True)
        yield subject_of(replace(Eden(bits), waterfill=True))
        yield subject_of(replace(Trellis(bits), waterfill=True))
    yield from peers()


def peers() -> Iterator[Subject]:
    """Yield the quantizers of other packages that are installed and run on this machine's CPU."""
    try:
        from bitsandbytes import functional
    except ImportError:
        return

    def four_bit(kind: str) -> Callable[[Tensor, TensorTable, int], tuple[Tensor, float]]:
        def round_trip(vector: Tensor, table: TensorTable, seed: int) -> tuple[Tensor, float]:
            codes, state = functional.quantize_4bit(vector, blocksize=64, quant_type=kind)
            sent = codes.numel() + 4 * state.absmax.numel()
            return functional.dequantize_4bit(codes, state).view(-1), 8 * sent / table.numel

        return round_trip

    def eight_bit(vector: Tensor, table: TensorTable, seed: int) -> tuple[Tensor, float]:
        codes, state = functional.quantize_blockwise(vector, blocksize=256)
        return functional.dequantize_blockwise(codes, state), 8 * (
            codes.numel() + 4 * state.absmax.numel()
        ) / table.numel

    yield Subject("bitsandbytes nf4", "bitsandbytes", four_bit("nf4"))
    yield Subject("bitsandbytes fp4", "bitsandbytes", four_bit("fp4"))
    yield Subject("bitsandbytes dynamic, 8 bit", "bitsandbytes", eight_bit)


def vectors(draw: Draw, rms: float, seeds: int) -> list[Tensor]:
    """Return ``seeds`` float32 vectors of the given root mean square."""
    found = []
    for seed in range(seeds):
        values = draw(np.random.default_rng(seed), TABLE.numel)
        found.append(torch.from_numpy(values * (rms / np.sqrt(np.mean(values**2)))).float())
    return found


def real_updates(seeds: int) -> tuple[list[Tensor], TensorTable]:
    """Return what a round of local training changes, one shipped institution a seed, and the
    network's table."""
    updates = []
    for seed in range(seeds):
        config = resolve({"run.seed": seed})
        model = build_model(config)
        table = TensorTable.of(model)
        site = load_site(sample_sites()[seed % len(sample_sites())])
        chips = open_chips(site, config.data.bands, config.data.chip_size, None)
        batches = batches_of(chips, config.train.batch_size, torch.Generator().manual_seed(seed))
        start = Start(2, Replica.first(table.read(model)), torch.zeros(len(table)), seed, config.train.local_steps)
        model = model.to(memory_format=torch.channels_last)
        updates.append(train_locally(config, model, table, build_recipe(config), batches, start).delta)
    return updates, table


@dataclass(frozen=True)
class Found:
    """What one codec loses on one input."""

    subject: Subject
    source: str
    bits: float
    errors: Sequence[float]

    @property
    def error(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.errors))

    def row(self) -> str:
        """Return one line of the table."""
        limit = 4.0**-self.bits
        cells = [self.subject.label, self.source, f"{self.bits:.3f}", f"{self.error:.4g} ± {np.std(self.errors):.1g}"]
        return f"| {' | '.join(cells)} | {limit:.4g} | {self.error / limit:.2f} |"


def measure(subject: Subject, source: str, inputs: Sequence[Tensor], table: TensorTable) -> Found:
    """Send every input through a codec."""
    errors, bits = [], 0.0
    for seed, vector in enumerate(inputs):
        decoded, bits = subject.round_trip(vector, table, seed)
        errors.append(float((decoded.double() - vector.double()).square().sum() / vector.double().square().sum()))
    return Found(subject, source, bits, errors)


def plot(found: Sequence[Found], path: Path) -> None:
    """Draw error against bits, one panel an input."""
    mpl.use("Agg")
    sources = [source for source in PLOTTED if any(one.source == source for one in found)]
    size = (5.5 * len(sources) + 2, 5)
    figure, panels = plt.subplots(1, len(sources), figsize=size, squeeze=False, sharey=True, layout="constrained")
    families = [f for f in dict.fromkeys(one.subject.family for one in found) if not f.endswith(HIDDEN)]
    colours = dict(zip(families, plt.get_cmap("tab20")(np.linspace(0, 1, len(families))), strict=True)) | OWN_COLOURS
    rates = np.linspace(0.5, 8.5, 100)
    for panel, source in zip(panels[0], sources, strict=True):
        panel.plot(rates, 4.0**-rates, "k--", lw=1, label="limit for normal numbers, $2^{-2R}$")
        for family in families:
            points = sorted((o.bits, o.error) for o in found if o.source == source and o.subject.family == family)
            style = (
                {"lw": 2, "ls": "-", "marker": "o"} if family in OWN_COLOURS else {"lw": 1, "ls": ":", "marker": "s"}
            )
            panel.plot(*zip(*points, strict=True), color=colours[family], ms=5, label=family, **style)
        limits = {"xlim": (0.4, 8.6), "ylim": (8e-6, 2)}
        panel.set(yscale="log", xlabel="bits a parameter, everything counted", title=source, **limits)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("normalised squared error")
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="vectors for each input (default: 5)")
    parser.add_argument("--rms", type=float, default=1e-3, help="root mean square of drawn vectors (default: 1e-3)")
    parser.add_argument("--real", action="store_true", help="add real updates")
    parser.add_argument("--codecs", nargs="+", default=[], help="only labels that begin with one of these")
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    return parser.parse_args()


def main() -> None:
    """Measure every codec on every input."""
    options = arguments()
    inputs = {name: (vectors(draw, options.rms, options.seeds), TABLE) for name, draw in DISTRIBUTIONS.items()}
    if options.real:
        inputs["real update"] = real_updates(options.seeds)
    print("| codec | input | bits a parameter, R | error ± deviation over seeds | 2^-2R | times the limit |")
    print("|---|---|---|---|---|---|")
    found = []
    for subject in subjects():
        if options.codecs and not subject.label.startswith(tuple(options.codecs)):
            continue
        for source, (values, table) in inputs.items():
            found.append(measure(subject, source, values, table))
            print(found[-1].row(), flush=True)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
