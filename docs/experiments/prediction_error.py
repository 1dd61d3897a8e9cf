"""Measure what the shared prediction takes off the error of the mean update, on a real federation.

One process plays server and institutions on the shipped sample, with the settings of
``flower.toml``: real local training, guidance, broadcasts and distillation. One arm drives the
rounds; all arms code the *same* updates, each with its own residuals and coefficients, and the same
momentum.

    OMP_NUM_THREADS=1 python docs/experiments/prediction_error.py \\
        --codec eden --bits 1 --rounds 20 --seeds 3 --out OUT

Writes OUT/prediction_error-CODEC-BITS.json, .csv and .png, and prints a Markdown table. A finished
seed is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from client_app.training import Outcome, Start, train_locally
from fedsense_core.codecs.codec import get_codec
from fedsense_core.config import Config, resolve
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.batches.feeding import batches_of
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_public, sample_sites
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.prediction import coefficients, momentum_weight, prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.protocol.uplink.encode import Encode
from fedsense_core.protocol.uplink.feedback import Feedback
from fedsense_core.protocol.uplink.pipeline import Uplink
from fedsense_core.protocol.uplink.predict import Predict
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable
from server_app.distillation.distiller import Distiller
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser
from server_app.radius import radii

mpl.use("Agg")
import matplotlib.pyplot as plt

ARMS = {
    "plain": "error feedback alone",
    "clipped": "prediction, clip at 1",
    "corrected": "prediction, momentum without its start-up bias",
}
FIRST_PREDICTED = 3
"""Round 1 has no momentum, round 2 no coefficient: the arms are equal until here."""


@dataclass
class Arm:
    """One way to code the same updates."""

    name: str
    beta: float
    gammas: Tensor
    residuals: dict[str, Tensor] = field(default_factory=dict)

    def send(self, deltas: Mapping[str, Tensor], replica: Replica, stream: Stream, up: Mapping[str, Encode]) -> Updates:
        """Code every update (N,) and return what the server decodes, by site."""
        predicted = prediction(self.gammas, replica.momentum, stream.table)
        decoded: Updates = {}
        for site, delta in deltas.items():
            feedback = Feedback(self.residuals.get(site))
            uplink = Uplink([feedback] if predicted is None else [feedback, Predict(predicted)], up[site])
            decoded[site] = uplink.receive(uplink.send(delta))
            assert feedback.residual is not None
            self.residuals[site] = feedback.residual
        return decoded

    def learn(self, mean_update: Tensor, replica: Replica, table: TensorTable) -> None:
        """Set the coefficients of the next round, whose broadcast adds one version."""
        if self.name == "clipped":
            self.gammas = coefficients(mean_update, replica.momentum, 1.0, table)
        if self.name == "corrected":
            now, then = (momentum_weight(self.beta, replica.version + later) for later in (0, 1))
            self.gammas = coefficients(mean_update, replica.momentum, now, table) / then


Updates = dict[str, Tensor]


@dataclass
class Institutions:
    """What the institutions of one run hold: imagery and optimiser states."""

    config: Config
    table: TensorTable
    sets: Mapping[str, Chips]
    optimisers: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def train(self, server_round: int, replica: Replica, radii_L: Tensor) -> Updates:
        """Return Δ_i (N,) of every institution."""
        deltas = {}
        for site in self.sets:
            outcome = self._train(site, server_round, replica, radii_L)
            self.optimisers[site], deltas[site] = outcome.optimiser, outcome.delta
        return deltas

    def _train(self, site: str, server_round: int, replica: Replica, radii_L: Tensor) -> Outcome:
        seed, train = self.config.run.seed, self.config.train
        generator = torch.Generator().manual_seed(seed_of(seed, site, server_round, "batches"))
        batches = batches_of(self.sets[site], train.batch_size, generator)
        start = Start(
            round=server_round,
            replica=replica,
            radii=radii_L,
            seed=seed_of(seed, site, server_round, "steps"),
            steps_done=(server_round - 1) * train.local_steps,
            optimiser=self.optimisers.get(site, {}),
        )
        model = build_model(self.config).to(memory_format=torch.channels_last)
        return train_locally(self.config, model, self.table, build_recipe(self.config), batches, start)


def federation(config: Config, driver: str) -> Iterator[dict[str, Any]]:
    """Run the rounds of one seed and yield what each arm lost in each."""
    model = build_model(config)
    table = TensorTable.of(model)
    stream = Stream(1, config.run.seed, table, config.guidance.momentum)
    down = config.downlink
    server = Broadcaster(stream, get_codec(down.codec, down.bits, down.state_bits))
    outer, data = OuterOptimiser.of(config.outer), config.data
    sites = {site.name: site for site in map(load_site, sample_sites())}
    chips = {name: open_chips(site, data.bands, data.chip_size, None) for name, site in sorted(sites.items())}
    public = open_chips(load_site(sample_public()), data.bands, data.chip_size, None)
    recipe, everything = build_recipe(config), Batch(public.batch(torch.arange(len(public))), public.spectrum)
    distiller = Distiller(config, [everything], recipe, torch.device("cpu"))
    institutions = Institutions(config, table, chips)
    arms = [Arm(name, config.guidance.momentum, torch.zeros(len(table))) for name in ARMS]
    weights, last_norms = table.read(model).float(), None
    for server_round in range(1, config.run.rounds + 1):
        began = time.monotonic()
        replica = server.advance(weights)
        deltas = institutions.train(server_round, replica, radii(config, server_round, last_norms, len(table)))
        line = {"round": server_round, "cosine": cosine(mean_of(deltas), replica.momentum), "errors": {}}
        for arm in arms:
            decoded = arm.send(deltas, replica, stream, encoders(config, stream, server_round, deltas))
            mean = mean_of(decoded)
            line["errors"][arm.name] = relative_error(mean, mean_of(deltas))
            arm.learn(mean, replica, table)
            if arm.name == driver:
                last_norms, weights = table.norms(mean), outer.step(weights, mean)
                teachers = []
                for update in decoded.values():
                    table.write(replica.weights + update, model)
                    teachers.append(distiller.teacher(model, 1 / len(decoded)))
        table.write(weights, model)
        weights, _ = distiller.distil(model, table, teachers, server_round)
        yield line | {"seconds": time.monotonic() - began}


def encoders(config: Config, stream: Stream, server_round: int, sites: Iterable[str]) -> dict[str, Encode]:
    """Return how each site codes the round; the rotations are those of a run."""
    codec = get_codec(config.uplink.codec, config.uplink.bits, config.uplink.state_bits)
    return {site: Encode(codec, stream.table, stream.update_seed(server_round, site)) for site in sites}


def mean_of(updates: Mapping[str, Tensor]) -> Tensor:
    """Return the mean update (N,): every institution has seen as many chips."""
    return torch.stack(list(updates.values())).mean(0)


def relative_error(mean: Tensor, true: Tensor) -> float:
    """Return |Δ̄ - true|² / |true|², in float64."""
    return float((mean.double() - true.double()).square().sum() / true.double().square().sum())


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two vectors (N,), 0 where one is zero."""
    size = float(a.double().norm() * b.double().norm())
    return float(a.double() @ b.double()) / size if size else 0.0


@dataclass(frozen=True)
class Results:
    """The lines of all finished seeds, in one JSON file."""

    path: Path
    settings: dict[str, Any]

    def seeds(self) -> dict[int, list[dict[str, Any]]]:
        """Return the lines by seed. Exits where the file belongs to other settings."""
        if not self.path.exists():
            return {}
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if content["settings"] != self.settings:
            raise SystemExit(f"{self.path} holds other settings ({content['settings']}): choose another --out")
        return {int(seed): lines for seed, lines in content["seeds"].items()}

    def add(self, seed: int, lines: list[dict[str, Any]]) -> None:
        """Write the file anew, with one seed more, and a CSV of all lines beside it."""
        seeds = self.seeds() | {seed: lines}
        self.path.write_text(json.dumps({"settings": self.settings, "seeds": seeds}, indent=1), encoding="utf-8")
        with self.path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["seed", "round", "cosine", *ARMS])
            for number, rows in seeds.items():
                for row in rows:
                    writer.writerow([number, row["round"], row["cosine"], *(row["errors"][arm] for arm in ARMS)])


def errors_of(seeds: Mapping[int, Sequence[Mapping[str, Any]]], arm: str) -> np.ndarray:
    """Return the errors of one arm, (seeds, rounds)."""
    return np.array([[line["errors"][arm] for line in lines] for lines in seeds.values()])


def table_of(seeds: Mapping[int, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the lines of the Markdown table: thirds of the rounds from the first prediction on,
    ranges over seeds.

    Ratios are taken round by round: the learning rate ends at zero, and with it the update that
    errors are relative to.
    """
    yield "| arm | error, first third | middle third | last third | ratio to error feedback alone | worst round |"
    yield "|---|---|---|---|---|---|"
    plain = errors_of(seeds, "plain")[:, FIRST_PREDICTED - 1 :]
    for arm, text in ARMS.items():
        errors = errors_of(seeds, arm)[:, FIRST_PREDICTED - 1 :]
        ratios = errors / plain
        yield f"| {text} | {thirds(errors)} | {ranged(ratios.mean(1))} | {ratios.max():.3f} |"
    cosines = np.array([[line["cosine"] for line in lines] for lines in seeds.values()])[:, FIRST_PREDICTED - 1 :]
    yield f"| cosine of Δ̄ and m̂ | {thirds(cosines)} | | |"


def thirds(values: np.ndarray) -> str:
    """Return the medians over each third of the rounds of (seeds, rounds)."""
    return " | ".join(ranged(np.median(part, axis=1)) for part in np.array_split(values, 3, axis=1))


def ranged(values: np.ndarray) -> str:
    """Return the mean and the range of one figure a seed."""
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def draw(seeds: Mapping[int, Sequence[Mapping[str, Any]]], title: str, path: Path) -> None:
    """Draw errors, their ratios and the correlation over the rounds: a line for the mean, a band
    for the range."""
    figure, panels = plt.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    above, middle, below = panels
    rounds = np.array([line["round"] for line in next(iter(seeds.values()))])
    plain = errors_of(seeds, "plain")
    for (arm, text), style in zip(ARMS.items(), ("-", "--", "-."), strict=True):
        band(above, rounds, errors_of(seeds, arm), text, style)
        band(middle, rounds, errors_of(seeds, arm) / plain, text, style)
    middle.set_ylabel("ratio to error feedback alone")
    above.set_ylabel("squared error of the mean update,\nrelative to the mean update")
    above.set_yscale("log")  # the learning rate ends at zero, and with it the update that errors are relative to
    above.set_title(title)
    above.legend()
    cosines = np.array([[line["cosine"] for line in lines] for lines in seeds.values()])
    band(below, rounds, cosines, "cosine of mean update and momentum", "-")
    below.axhline(0, color="grey", linewidth=0.8)
    below.set_ylabel("cosine of mean update\nand momentum")
    below.set_xlabel("round")
    below.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def band(axes: Any, rounds: np.ndarray, values: np.ndarray, text: str, style: str) -> None:
    """Draw the mean of (seeds, rounds) and its range."""
    (line,) = axes.plot(rounds, values.mean(0), style, label=text)
    axes.fill_between(rounds, values.min(0), values.max(0), color=line.get_color(), alpha=0.2)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="eden", help="codec of the uplink (default: eden)")
    parser.add_argument("--bits", type=int, default=1, help="bits per parameter (default: 1)")
    parser.add_argument("--state-bits", type=int, default=8, help="of the trellis codec (default: 8)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each run (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="runs, with seeds 0, 1, ... (default: 3)")
    parser.add_argument("--steps", type=int, default=10, help="local steps in a round (default: 10)")
    parser.add_argument("--driver", choices=list(ARMS), default="corrected", help="arm whose updates move the model")
    parser.add_argument("--out", type=Path, default=Path("prediction_error"), help="folder to write to")
    return parser.parse_args()


def main() -> None:
    """Run the seeds that are missing, then draw and print all."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    names = ("codec", "bits", "state_bits", "rounds", "steps", "driver")
    path = options.out / f"prediction_error-{options.codec}-{options.bits}.json"
    results = Results(path, {name: getattr(options, name) for name in names})
    for seed in range(options.seeds):
        if seed in results.seeds():
            continue
        run = {"run.seed": seed, "run.rounds": options.rounds, "train.local_steps": options.steps}
        lines = []
        link = {"codec": options.codec, "bits": options.bits, "state_bits": options.state_bits}
        config = resolve(run | {f"uplink.{key}": value for key, value in link.items()})
        for line in federation(config, options.driver):
            lines.append(line)
            errors = ", ".join(f"{arm} {error:.4f}" for arm, error in line["errors"].items())
            took = f"cosine {line['cosine']:.3f}, {line['seconds']:.0f} s"
            print(f"seed {seed}, round {line['round']}: {errors}; {took}", flush=True)
        results.add(seed, lines)
    title = f"{options.codec}, {options.bits} bit, {len(sample_sites())} institutions, {options.steps} local steps"
    draw(results.seeds(), title, path.with_suffix(".png"))
    print("\n".join(table_of(results.seeds())))


if __name__ == "__main__":
    main()
