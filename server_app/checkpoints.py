"""Checkpoints that are whole or not there: written aside, synced, checksummed, renamed; the newest
intact one continues.

Every random choice of a run is named by seed and round (``fedsense_core.seeds``), so no generator
state needs saving."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common.logger import log
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsense_core.atomic_io import sha256, whole_folder
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.errors import CheckpointError
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.sigreg import KNOTS, SigregStatistics
from server_app.clients import Held

FORMAT = 2
"""2 holds the predictor's coefficients."""
FRAME = "frame."
STATISTICS = "statistics."
EMBEDDING_SUMS = "embedding-sums."
TENSORS, MANIFEST = "server.safetensors", "manifest.json"


@dataclass
class ServerState:
    """All that the server carries from one round to the next."""

    run_id: int
    weights: Tensor
    """w, float32 (N,)."""
    round: int = 0
    """Last finished round."""
    replica: Replica | None = None
    moved: bool = True
    """Whether w changed since the last broadcast."""
    outer_momentum: Tensor | None = None
    last_norms: Tensor | None = None
    """‖Δ̄_l‖ of the last aggregated round, float64 (L,)."""
    shares: Tensor | None = None
    """How much of the mean change of the model was in it, float32 (L,): γ_l before it is fitted to
    the next m̂."""
    held: dict[str, Held] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    """Recent broadcast frames by version, for clients that lag."""
    aggregated: int = 0
    """Rounds that changed the model."""
    statistics: dict[str, SensorStatistics] = field(default_factory=dict)
    """Of the imagery of each site that shares them, by name: a site that comes again is not counted
    twice."""
    embedding_sums: dict[str, SigregStatistics] = field(default_factory=dict)
    """Over the last round's embeddings, by site (``train.federated_sigreg``): the next round's
    directions name them, and no later one's."""


class Manifest(BaseModel):
    """The part of a checkpoint that is not tensors; strict, because files can be edited and disks
    fail."""

    model_config = ConfigDict(extra="forbid")

    format: int
    round: int
    run_id: int
    config_digest: str
    version: int
    moved: bool
    aggregated: int
    held: dict[str, dict[str, int]]
    norms: list[float]
    sha256: str


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, config_digest: str, keep: int = 2) -> None:
        self.folder = folder
        self.config_digest = config_digest
        self.keep = keep

    def save(self, state: ServerState) -> Path:
        """Write a checkpoint of a finished round and drop the oldest ones."""
        with whole_folder(self._path(state.round)) as folder:
            save_file(_tensors(state), folder / TENSORS)
            manifest = self._manifest(state, sha256(folder / TENSORS))
            (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        for old in self._all()[: -self.keep]:
            shutil.rmtree(old)
        return self._path(state.round)

    def newest(self) -> ServerState | None:
        """Return the newest intact checkpoint, None if there is none at all.

        Raises CheckpointError where checkpoints exist but none is intact, or they belong to another
        configuration.
        """
        damaged = []
        for path in reversed(self._all()):
            try:
                return self._load(path)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                damaged.append(f"{path.name}: {error}")
                log(WARNING, "checkpoint %s is damaged (%s); trying the one before", path, error)
        if damaged:
            raise CheckpointError(
                f"no intact checkpoint in {self.folder} ({'; '.join(damaged)}). "
                "Restore one, or choose another run.folder"
            )
        return None

    def _load(self, path: Path) -> ServerState:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest.format != FORMAT:
            raise CheckpointError(
                f"{path} has format {manifest.format}, this FedSense reads {FORMAT}. "
                "Finish the run with the release that began it, or choose another run.folder"
            )
        if manifest.config_digest != self.config_digest:
            raise CheckpointError(
                f"{path} was written with another configuration ({manifest.config_digest}, now {self.config_digest}). "
                "Use the same settings to continue it, or choose another run.folder"
            )
        if sha256(path / TENSORS) != manifest.sha256:
            raise ValueError("its checksum is wrong")
        return _state(manifest, load_file(path / TENSORS))

    def _manifest(self, state: ServerState, sha256: str) -> Manifest:
        return Manifest(
            format=FORMAT,
            round=state.round,
            run_id=state.run_id,
            config_digest=self.config_digest,
            version=state.replica.version if state.replica else 0,
            moved=state.moved,
            aggregated=state.aggregated,
            held={site: asdict(held) for site, held in state.held.items()},
            norms=state.norms,
            sha256=sha256,
        )

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("round-*") if path.is_dir())

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:06d}"


def _tensors(state: ServerState) -> dict[str, Tensor]:
    named: dict[str, Tensor | None] = {
        "weights": state.weights,
        "replica.weights": state.replica.weights if state.replica else None,
        "replica.momentum": state.replica.momentum if state.replica else None,
        "outer.momentum": state.outer_momentum,
        "last.norms": state.last_norms,
        "shares": state.shares,
    }
    named |= {f"{FRAME}{version}": torch.from_numpy(frame) for version, frame in state.frames.items()}
    for site, statistics in state.statistics.items():
        named[STATISTICS + site] = _as_tensor(statistics.to_bytes())
    for site, sums in state.embedding_sums.items():
        named[EMBEDDING_SUMS + site] = _as_tensor(sums.to_bytes())
    # Clones: safetensors refuses two names for one memory, and in round 1 ŵ is w.
    return {name: value.detach().cpu().clone() for name, value in named.items() if value is not None}


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _as_sums(tensor: Tensor) -> SigregStatistics:
    return SigregStatistics.from_bytes(tensor.numpy().tobytes(), (len(tensor) - 8) // (8 * KNOTS))


def _state(manifest: Manifest, tensors: dict[str, Any]) -> ServerState:
    replica = None
    if "replica.weights" in tensors:
        replica = Replica(manifest.version, tensors["replica.weights"], tensors["replica.momentum"])
    return ServerState(
        run_id=manifest.run_id,
        weights=tensors["weights"],
        round=manifest.round,
        replica=replica,
        moved=manifest.moved,
        outer_momentum=tensors.get("outer.momentum"),
        last_norms=tensors.get("last.norms"),
        shares=tensors.get("shares"),
        held={site: Held(**held) for site, held in manifest.held.items()},
        norms=manifest.norms,
        frames={int(n.removeprefix(FRAME)): t.numpy() for n, t in tensors.items() if n.startswith(FRAME)},
        aggregated=manifest.aggregated,
        statistics={
            name.removeprefix(STATISTICS): SensorStatistics.from_bytes(tensor.numpy().tobytes())
            for name, tensor in tensors.items()
            if name.startswith(STATISTICS)
        },
        embedding_sums={
            name.removeprefix(EMBEDDING_SUMS): _as_sums(tensor)
            for name, tensor in tensors.items()
            if name.startswith(EMBEDDING_SUMS)
        },
    )
