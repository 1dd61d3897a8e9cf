"""A federation small enough for a test: three sites of 16-pixel chips, a public set, a network of
0.1 M weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from faulty_grid import Fault, FaultyGrid
from flwr.supercore.task_identity import TaskIdentity

from client_app.app import app
from fedsense_core.config import Config, resolve
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.protocol.replica import Replica
from fedsense_core.run_folder import RunFolder
from fedsense_core.state import as_bytes
from fedsense_core.tools.reporting.run_report import report_at_the_end
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.checkpoints import Checkpoints
from server_app.session import run_session

SITES = ("alpha", "beta", "gamma")
TINY: dict[str, Any] = {
    "run.rounds": 4,
    "run.evaluate_every": 0,
    "run.report": False,
    "federation.labelled": "",
    "federation.min_clients": len(SITES),
    "federation.wait_s": 0.0,
    "federation.pause_s": 0.0,
    "model.architecture": "resnet18",
    "model.args": {"layers": [1, 1, 1, 0], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm1"},
    "model.projector": [32, 16],
    "data.chip_size": 16,
    "data.view_size": 16,
    "train.local_steps": 2,
    "train.batch_size": 4,
    "distillation.steps": 1,
    "distillation.batch_size": 4,
}

MASKED_VIT: dict[str, Any] = {
    "model__architecture": "vit_tiny_patch16_224",
    "model__args": {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "avg"},
    "model__decoder_width": 32,
    "train__recipe": "mae",
}
MASKED_CONV: dict[str, Any] = {"train__recipe": "mae", "data__view_size": 64}


def tiny(**changes: Any) -> Config:
    """Return the tiny configuration; ``__`` in a keyword stands for the dot of a key."""
    return resolve({**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}, {})


def write_raster(path: Path, seed: int, side: int = 48) -> None:
    """Write a tiled RGB GeoTIFF of smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, side, side)).cumsum(1).cumsum(2)
    values = 40 + 170 * (values - values.min()) / np.ptp(values)
    profile = {"driver": "GTiff", "count": 3, "width": side, "height": side, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", blockxsize=16, blockysize=16, **profile) as raster:
        raster.write(values.astype(np.uint8))


def write_site(folder: Path, name: str, seed: int) -> Path:
    """Write a site file with one raster beside it."""
    write_raster(folder / name / "scene.tif", seed)
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n[[sources]]\npaths = ["{name}/*.tif"]\nsensor = "aerial-rgb"\n')
    return path


@dataclass(frozen=True)
class Checkpointed:
    """What a checkpoint holds, by the names that tests use."""

    state: dict[str, Any]

    @property
    def weights(self) -> torch.Tensor:
        weights: torch.Tensor = self.state["weights"]
        return weights

    @property
    def round(self) -> int:
        return int(self.state["round"])

    @property
    def run_id(self) -> int:
        return int(self.state["run_id"])

    @property
    def replica(self) -> Replica:
        return Replica(**self.state["broadcaster"]["replica"])

    @property
    def statistics(self) -> dict[str, SensorStatistics]:
        shared = self.state.get("sensor-statistics", {})
        return {site: SensorStatistics.from_bytes(as_bytes(tensor)) for site, tensor in shared.items()}

    @property
    def outer_momentum(self) -> torch.Tensor:
        momentum: torch.Tensor = self.state["outer"]["momentum"]
        return momentum

    @property
    def last_norms(self) -> torch.Tensor:
        norms: torch.Tensor = self.state["radius"]["last_norms"]
        return norms


@dataclass
class Federation:
    """One run of the tiny federation; make another with the same folder to continue it."""

    root: Path
    changes: dict[str, Any] = field(default_factory=dict)
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)
    first_node: int = 100

    def __post_init__(self) -> None:
        sites = self.root / "sites"
        if not sites.exists():
            for seed, name in enumerate(SITES):
                write_site(sites, name, seed)
            write_site(self.root, "public", 99)
        self.run_config = TINY | {
            "federation.sites": str(sites),
            "federation.public": str(self.root / "public.toml"),
            "run.folder": str(self.root / "run"),
            **self.changes,
        }
        nodes = [{"partition-id": i, "num-partitions": len(SITES)} for i in range(len(SITES))]
        self.grid = FaultyGrid(app, self.run_config, nodes, first_node=self.first_node, faults=dict(self.faults))
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE

    @property
    def config(self) -> Config:
        return resolve(self.run_config, {})

    def run(self) -> RunFolder:
        """Train to the end, as every command that starts a run does, and return what is left."""
        run = RunFolder(run_session(resolve(self.run_config), self.grid))
        report_at_the_end(run, print)
        return run

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root / "run")

    def state(self, server_round: int | None = None) -> Checkpointed:
        """Return the newest checkpoint, or that of a round."""
        checkpoints = Checkpoints(self.folder.checkpoints, resolve(self.run_config).digest)
        found = checkpoints.newest() if server_round is None else checkpoints.of_round(server_round)
        assert found is not None
        return Checkpointed(found)

    def node(self, site: str) -> int:
        """Return the node id of a site."""
        return self.first_node + SITES.index(site)

    def lines(self) -> list[dict[str, Any]]:
        """Return the metrics of finished rounds."""
        return [line for line in self.folder.read_metrics() if line["round"] > 0]


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let ``caplog`` see what Flower's logger, which keeps its lines to itself, is given."""
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two vectors agree in every bit."""
    return a.shape == b.shape and torch.equal(a, b)
