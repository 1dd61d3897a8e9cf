"""Does a federation on all bands beat the same federation cut down to red, green and blue? Two
arms, same seeds.

Writes the institutions of DATA (the npz files of the development imagery) as GeoTIFFs with site
files, runs each arm with ``fedsense run`` (a finished run is not run again), and probes the
exported encoders on tasks of more than three bands. Each encoder reads a task twice: with all its
bands, and with those of the visible light alone; random weights of the same network and the mean
and deviation of each band are shown beside. Prints Markdown.

    python docs/experiments/bands_federation.py DATA OUT --seeds 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from scipy import stats

from fedsense_core import load_encoder
from fedsense_core.config import Config
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.probes import linear_scores
from fedsense_core.models.pretraining import build_model
from fedsense_core.run_folder import RunFolder

CHIP = 64
VIEW = 48
ARMS = {"all bands": "all", "visible": "red,green,blue"}
MSS = [("green", 0.55), ("red", 0.65), ("nir", 0.75), ("nir_2", 0.95)]
THERMAL = {"name": "thermal", "wavelength_um": 11.45}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Task:
    """A labelled set of more than three bands."""

    name: str
    bands: tuple[Band, ...]
    x_NCHW: Array
    labels: Array
    is_test: Array
    groups: Array

    def reading(self, visible: bool) -> tuple[tuple[Band, ...], Array]:
        """Return the bands that are read and their pixels, standardised by the training part."""
        seen = [i for i, band in enumerate(self.bands) if not visible or (band.wavelength_um or 9) < 0.7]
        x = self.x_NCHW[:, seen].astype(np.float32)
        train = x[~self.is_test]
        mean, deviation = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
        return tuple(self.bands[i] for i in seen), np.clip((x - mean) / deviation, -6, 6)


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the npz files")
    parser.add_argument("out", type=Path, help="folder for imagery and runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="fedsense")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of every run")
    args = parser.parse_args()
    out = args.out.resolve()
    write_institutions(args.data, out)
    tasks = load_tasks(args.data)
    scores: dict[tuple[str, str, bool], list[float]] = {}
    for seed in range(args.seeds):
        for arm in ARMS:
            run = ensure_run(out, arm, seed, args.preset, args.set)
            for key, value in probe_run(run, tasks).items():
                trained, task, visible = json.loads(key)
                scores.setdefault((arm if trained else f"random weights, {arm}", task, visible), []).append(value)
    print_tables(scores, tasks)


def write_institutions(data: Path, out: Path) -> None:
    """Write each institution's chips as one mosaic a sensor, and the site files beside them."""
    (out / "sites").mkdir(parents=True, exist_ok=True)
    modis = _load(data, "inst_A_modis_global")["x"]
    _site(out, "modis-global", [("modis-rgb", ["red", "green", "blue"], modis)])
    _site(
        out, "landsat8-parana", [("landsat8-l1", ["red", "green", "blue"], _load(data, "inst_B_landsat8_parana")["x"])]
    )
    virginia = _load(data, "inst_C_sentinel2_virginia")
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(virginia["x20"].astype(np.float32)), scale_factor=2, mode="bilinear"
    )
    ten = np.concatenate([virginia["x"], fine.round().numpy().astype(np.uint16)], axis=1)
    _site(
        out,
        "sentinel2-virginia",
        [("sentinel2-l1c", ["B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"], ten)],
    )
    etm = [
        *(shipped_card("landsat7-l1", "").only(["blue", "green", "red", "nir", "swir_1"], "").bands),
        Band(**THERMAL),  # type: ignore[arg-type]
        *(shipped_card("landsat7-l1", "").only(["swir_2"], "").bands),
    ]
    _site(out, "landsat7-saltlake", [(etm, None, _load(data, "inst_D1_landsat7_saltlake")["x"])])
    forest = _load(data, "inst_E_aerial_forest")["x"]
    _site(out, "neon-aerial", [("aerial-rgb", ["red", "green", "blue"], forest)])
    rotterdam = _load(data, "inst_F2_vhr_rotterdam")
    wv2 = [Band(name=n, wavelength_um=w) for n, w in (("blue", 0.48), ("green", 0.545), ("red", 0.66), ("nir", 0.833))]
    _site(out, "rotterdam", [(wv2, None, rotterdam["ms"])])
    public = [
        ("landsat7-l1", ["blue", "green", "red", "nir", "swir_1", "swir_2"], _load(data, "public/l7_olinda")["x"]),
        (
            "sentinel2-l2a",
            ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"],
            _load(data, "public/s2_bouconne_7dates")["x"],
        ),
        (
            "sentinel2-l2a",
            ["B02", "B03", "B04", "B08", "B11", "B12"],
            _load(data, "public/s2_atacama")["x"],
        ),
        ("rgb", ["red", "green", "blue"], _load(data, "public/landsat_rmnp")["x"]),
        ("rgb", ["red", "green", "blue"], _load(data, "public/l7_bahamas")["x"]),
    ]
    _site(out, "public", public, folder=".")


def _load(data: Path, name: str) -> dict[str, Array]:
    with np.load(data / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def _site(out: Path, name: str, sources: Sequence[tuple[Any, Any, Array]], folder: str = "sites") -> None:
    lines = [f'name = "{name}"']
    for number, (sensor, bands, chips) in enumerate(sources):
        path = out / "imagery" / f"{name}-{number}.tif"
        if not path.exists():
            _mosaic(path, chips)
        lines += ["", "[[sources]]", f'paths = ["{path}"]']
        if isinstance(sensor, str):
            lines += [f'sensor = "{sensor}"', f"bands = {json.dumps(bands)}"]
        else:
            inner = ", ".join(f'{{ name = "{b.name}", wavelength_um = {b.wavelength_um} }}' for b in sensor)
            lines += ["[sources.sensor]", "gsd_m = 30.0", f"bands = [{inner}]"]
    (out / folder / f"{name}.toml").write_text("\n".join(lines) + "\n")


def _mosaic(path: Path, chips_NCHW: Array) -> None:
    """Write chips side by side, as many as fill whole rows; the tag says that they are
    unrelated."""
    across = min(16, len(chips_NCHW))
    down = len(chips_NCHW) // across
    chips = chips_NCHW[: across * down, :, :CHIP, :CHIP]
    bands = chips.shape[1]
    grid = chips.reshape(down, across, bands, CHIP, CHIP).transpose(2, 0, 3, 1, 4).reshape(bands, down * CHIP, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": CHIP, "blockysize": CHIP, "compress": "deflate"}
    shape = {"count": bands, "height": grid.shape[1], "width": grid.shape[2], "dtype": grid.dtype}
    with rasterio.open(path, "w", **profile, **shape) as file:
        file.write(grid)
        file.update_tags(FEDSENSE_CHIP_SIZE=CHIP)


def ensure_run(out: Path, arm: str, seed: int, preset: str, settings: list[str]) -> RunFolder:
    """Run one trial unless it is finished."""
    folder = out / f"{arm.replace(' ', '-')}-seed{seed}"
    if not RunFolder(folder).is_finished:
        command = ["fedsense", "run", "--preset", preset, "--seed", str(seed), "--out", str(folder)]
        command += ["--sites", str(out / "sites"), "--public", str(out / "public.toml")]
        chosen = [f"data.bands={ARMS[arm]}", "model.stem=wavelength", "federation.labelled=", "run.report=false"]
        for setting in [*chosen, *settings]:
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return RunFolder(folder)


def load_tasks(data: Path) -> list[Task]:
    """Return land cover of Landsat 7, snow and clouds of Landsat 5 and 7, and soils of Landsat
    MSS."""
    etm = tuple(shipped_card("landsat7-l1", "").bands)
    tm = tuple(shipped_card("landsat5-l2", "").only(["red", "nir", "swir_1"], "").bands)
    mss = tuple(Band(name=name, wavelength_um=wavelength) for name, wavelength in MSS)
    parts = [_load(data, f"t2_nc_patches16_{split}") for split in ("train", "dev")]
    x, y, group = (np.concatenate([part[key] for part in parts]) for key in ("x", "y", "group"))
    is_test = np.repeat([False, True], [len(part["x"]) for part in parts])
    common = np.isin(y, [label for label in np.unique(y) if (y == label).sum() >= 100])
    cover = Task("land cover, Landsat 7", etm, x[common], y[common], is_test[common], group[common])
    soils = _load(data, "t4_statlog_mss_3x3")
    mss_task = Task("soils, Landsat MSS", mss, soils["x"], soils["y"], soils["is_test"], np.arange(len(soils["y"])))
    return [cover, _covers(_load(data, "extra_landsat_series_colorado"), tm), mss_task]


def _covers(arrays: dict[str, Array], bands: tuple[Band, ...], side: int = 12) -> Task:
    """Cut squares of one class in four fifths: clear land, snow or cloud. Dates take turns between
    the parts."""
    x, y, test, groups = [], [], [], []
    for date, (image, mask) in enumerate(zip(arrays["x"], arrays["fmask"], strict=True)):
        for row in range(0, mask.shape[0] - side + 1, side):
            for column in range(0, mask.shape[1] - side + 1, side):
                square = mask[row : row + side, column : column + side]
                shares = [(square == value).mean() for value in (0, 3, 4)]
                if (square == 255).any() or max(shares) < 0.8:
                    continue
                x.append(image[:, row : row + side, column : column + side])
                y.append(int(np.argmax(shares)))
                test.append(date % 2 == 1)
                groups.append(date)
    return Task(
        "clear, snow or cloud (proxy), Landsat 5 and 7",
        bands,
        np.stack(x),
        np.array(y),
        np.array(test),
        np.array(groups),
    )


def probe_run(run: RunFolder, tasks: list[Task]) -> dict[str, float]:
    """Return macro F1 of linear probes by (trained, task, visible only); stored with the run."""
    stored = run.path / "bands.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    untrained = build_model(Config(**run.read_config()))
    scores = {}
    for task in tasks:
        for visible in (False, True):
            bands, x = task.reading(visible)
            for trained in (True, False):
                encoder = load_encoder(run.encoder, bands=bands) if trained else untrained.encoder_for(bands).eval()
                scores[json.dumps([trained, task.name, visible])] = _score(encoder, task, x)
    stored.write_text(json.dumps(scores))
    return scores


def _score(encoder: torch.nn.Module, task: Task, x_NCHW: Array) -> float:
    features, test = embed(encoder, torch.from_numpy(x_NCHW), size=VIEW), task.is_test
    scores = linear_scores(features[~test], task.labels[~test], features[test], task.labels[test], task.groups[test])
    return scores.macro_f1


def _colour_score(task: Task, visible: bool) -> float:
    """Return macro F1 of mean and deviation of each band: what no texture and no training gives."""
    _, x = task.reading(visible)
    features, test = np.concatenate([x.mean((2, 3)), x.std((2, 3))], axis=1), task.is_test
    return linear_scores(features[~test], task.labels[~test], features[test], task.labels[test]).macro_f1


def print_tables(scores: dict[tuple[str, str, bool], list[float]], tasks: list[Task]) -> None:
    """Print the table of scores and the paired differences."""
    columns = [(task.name, visible) for task in tasks for visible in (False, True)]
    heads = [f"{name}, {'visible' if visible else 'all bands'} read" for name, visible in columns]
    print(f"| trained on | {' | '.join(heads)} |\n|---|{'---|' * len(columns)}")
    for arm in dict.fromkeys(arm for arm, _, _ in scores):
        texts = [spread(scores[arm, *column]) for column in columns]
        print(f"| {arm} | {' | '.join(texts)} |")
    texts = [f"{_colour_score(task, visible):.3f}" for task in tasks for visible in (False, True)]
    print(f"| mean and deviation of bands | {' | '.join(texts)} |")
    print(f"\nMacro F1 of linear probes, mean ± deviation over {len(scores[next(iter(scores))])} seeds.\n")
    print("| pair, same seeds | " + " | ".join(task.name for task in tasks) + " | mean of the tasks |")
    print("|---|" + "---|" * (len(tasks) + 1))
    full, visible = ARMS
    pairs = {
        "all bands trained and read, minus visible trained and read": ((full, False), (visible, True)),
        "all bands trained, minus visible trained, all bands read": ((full, False), (visible, False)),
        "all bands read, minus visible read, of the model of all bands": ((full, False), (full, True)),
    }
    for text, ((a, reads_a), (b, reads_b)) in pairs.items():
        rows = [100 * (np.array(scores[a, t.name, reads_a]) - np.array(scores[b, t.name, reads_b])) for t in tasks]
        rows.append(np.mean(rows, axis=0))
        print(f"| {text} | {' | '.join(interval(row) for row in rows)} |")
    print("\nPoints of macro F1, with the 95 % interval over seeds (Student's t).")


def spread(values: list[float]) -> str:
    """Return mean ± deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else float('nan'):.3f}"


def interval(differences: Array) -> str:
    """Return the mean with its two-sided 95 % interval."""
    n = len(differences)
    if n < 2:
        return f"{differences.mean():+.2f}"
    half = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return f"{differences.mean():+.2f} ({differences.mean() - half:+.2f} to {differences.mean() + half:+.2f})"


if __name__ == "__main__":
    main()
