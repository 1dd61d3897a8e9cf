"""Checkpoints that are whole or not there: written aside, synced, checksummed, renamed; the newest
intact one continues.

A checkpoint holds the ``state_dict`` of the strategy, whatever its components put into it: tensors
in one file, all else beside them in the manifest. Every random choice of a run is named by seed and
round (``fedsense_core.seeds``), so no generator state needs saving.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common.logger import log
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsense_core.atomic_io import sha256, whole_folder
from fedsense_core.errors import CheckpointError
from fedsense_core.state import State

FORMAT = 3
"""3 holds the state of each component by its name."""
TENSORS, MANIFEST = "server.safetensors", "manifest.json"
KEPT = "kept"
"""Name of the empty file in a checkpoint that no newer one replaces."""
TENSOR = "tensor"
"""Key of the object that stands in the manifest for a tensor, with the tensor's name as its
value."""


class Manifest(BaseModel):
    """The part of a checkpoint that is not tensors; strict, because files can be edited and disks
    fail."""

    model_config = ConfigDict(extra="forbid")

    format: int
    round: int
    config_digest: str
    state: dict[str, Any]
    """The state dictionary, tensors replaced by their names."""
    state_sha256: str
    """Of ``state`` as JSON with sorted keys."""
    sha256: str
    """Of the file of tensors."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, config_digest: str, keep: int = 2) -> None:
        self.folder = folder
        self.config_digest = config_digest
        self.keep = keep

    def save(self, server_round: int, state: State) -> Path:
        """Write the state after a finished round and drop the oldest checkpoints."""
        tensors: dict[str, Tensor] = {}
        rest = _without_tensors(state, "", tensors)
        with whole_folder(self._path(server_round)) as folder:
            # Clones: safetensors refuses two names for one memory, and in round 1 ŵ is w.
            save_file({name: value.detach().cpu().clone() for name, value in tensors.items()}, folder / TENSORS)
            manifest = Manifest(
                format=FORMAT,
                round=server_round,
                config_digest=self.config_digest,
                state=rest,
                state_sha256=_digest(rest),
                sha256=sha256(folder / TENSORS),
            )
            (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        passing = [path for path in self._all() if not (path / KEPT).exists()]
        for old in passing[: -self.keep]:
            shutil.rmtree(old)
        return self._path(server_round)

    def newest(self) -> State | None:
        """Return the state of the newest intact checkpoint, None if there is none at all.

        Raises CheckpointError where checkpoints exist but none is intact, or they belong to another
        configuration.
        """
        damaged = []
        for path in reversed(self._all()):
            try:
                return self.load(path)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                damaged.append(f"{path.name}: {error}")
                log(WARNING, "checkpoint %s is damaged (%s); trying the one before", path, error)
        if damaged:
            raise CheckpointError(
                f"no intact checkpoint in {self.folder} ({'; '.join(damaged)}). "
                "Restore one, or choose another run.folder"
            )
        return None

    def load(self, path: Path) -> State:
        """Return the state in one checkpoint's folder. Raises CheckpointError, or ValueError where
        it is damaged."""
        manifest = _manifest(path / MANIFEST)
        if manifest.config_digest != self.config_digest:
            raise CheckpointError(
                f"{path / MANIFEST} was written with another configuration ({manifest.config_digest}, now "
                f"{self.config_digest}). Use the same settings to continue it, or choose another run.folder"
            )
        if _digest(manifest.state) != manifest.state_sha256:
            raise ValueError(f"{MANIFEST}: its checksum is wrong")
        if not self._path(manifest.round).name == self._path(manifest.state["round"]).name == path.name:
            raise ValueError(f"{MANIFEST}: it is of round {manifest.state['round']}")
        if sha256(path / TENSORS) != manifest.sha256:
            raise ValueError(f"{TENSORS}: its checksum is wrong")
        return _with_tensors(manifest.state, load_file(path / TENSORS))

    def rounds(self) -> list[int]:
        """Return the rounds whose checkpoints are there, oldest first."""
        return [int(path.name.removeprefix("round-")) for path in self._all()]

    def keep_for_good(self, server_round: int) -> None:
        """Drop the checkpoint of a round never; nothing happens where it is gone already."""
        if self._path(server_round).is_dir():
            (self._path(server_round) / KEPT).touch()

    def of_round(self, server_round: int) -> State:
        """Return the state after one round, whose checkpoint must still be there."""
        return self.load(self._path(server_round))

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("round-*") if path.is_dir())

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:06d}"


def _manifest(path: Path) -> Manifest:
    """Read a manifest. Raises CheckpointError for one of another release, ValueError for one that
    is damaged."""
    try:
        written = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if isinstance(written.get("format"), int) and written["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {written['format']}, this FedSense reads {FORMAT}. "
            "Finish the run with the release that began it, or choose another run.folder"
        )
    try:
        return Manifest.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _without_tensors(state: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]) -> State:
    """Return ``state`` with names in place of its tensors, which are put into ``tensors``."""
    rest: State = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            tensors[name] = value
            rest[key] = {TENSOR: name}
        else:
            rest[key] = _without_tensors(value, f"{name}/", tensors) if isinstance(value, Mapping) else value
    return rest


def _with_tensors(rest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> State:
    state: State = {}
    for key, value in rest.items():
        if not isinstance(value, Mapping):
            state[key] = value
        elif set(value) == {TENSOR} and isinstance(value[TENSOR], str):
            state[key] = tensors[value[TENSOR]]
        else:
            state[key] = _with_tensors(value, tensors)
    return state


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
