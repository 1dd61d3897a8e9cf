"""What a client keeps between rounds, on its own disk: one slot for each of at most two rounds.

The slot of the round that the server acknowledged is *committed*, the newer one is *pending*. Which
is which is decided by the server's next message alone, so no crash can leave them confused: slots
are folders named by round, written whole or not at all. Flower's ``context.state`` would lose all
this silently above about 200 MB, and with every restart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from client_app.personalisation import PersonalModels
from fedsense_core.atomic_io import sha256, whole_folder
from fedsense_core.protocol.replica import Replica

KEEP_DAYS = 30
STATE, MANIFEST = "state.safetensors", "manifest.json"
SEAL = "seal"
"""Key in the manifest of the checksum of all else in it."""


@dataclass(frozen=True)
class Slot:
    """The state of one client after one round."""

    round: int
    replica: Replica
    uplink: dict[str, Tensor] = field(default_factory=dict)
    """What the stages of the uplink need in the next round, such as ``feedback.residual``."""
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    """Inner optimiser state, flat, by name."""
    local: dict[str, Tensor] = field(default_factory=dict)
    """Parameters that never travel."""
    personal: PersonalModels = field(default_factory=PersonalModels)
    """The client's own last model and its teacher, where the method keeps them."""

    @property
    def residual(self) -> Tensor | None:
        """e (N,), the error-feedback residual; None without error feedback."""
        return self.uplink.get("feedback.residual")


class ClientMemory:
    """Slots of one run in one folder."""

    def __init__(self, state_dir: Path, run_id: int) -> None:
        self.folder = state_dir / f"run-{run_id:016x}"

    def rounds(self) -> list[int]:
        """Return the rounds whose slots are on disk, oldest first."""
        return sorted(int(p.name.removeprefix("round-")) for p in self.folder.glob("round-*") if p.is_dir())

    def recall(self, acknowledged: int) -> Slot | None:
        """Commit the acknowledged round and roll everything else back.

        Returns the committed slot, or None where it was lost, damaged, or nothing was acknowledged
        yet.
        """
        for number in self.rounds():
            if number != acknowledged:
                shutil.rmtree(self._path(number), ignore_errors=True)
        return self._load(acknowledged) if acknowledged else None

    def keep(self, slot: Slot) -> None:
        """Write the slot of a round, pending until acknowledged. The committed slot stays."""
        self._forget_old_runs()
        with whole_folder(self._path(slot.round)) as folder:
            save_file(_pack(slot), folder / STATE)
            about = {"round": slot.round, "version": slot.replica.version, "sha256": sha256(folder / STATE)}
            (folder / MANIFEST).write_text(json.dumps(about | {SEAL: _seal(about)}), encoding="utf-8")

    def inherit(self, earlier: ClientMemory) -> None:
        """Begin with the slots of the run that this one goes on from, unless there are some here.

        They are linked, not copied, where the disk allows it: what is in a slot never changes.
        """
        if self.folder.exists() or not earlier.rounds():
            return
        with whole_folder(self.folder) as folder:
            for number in earlier.rounds():
                path = earlier._path(number)
                shutil.copytree(path, folder / path.name, copy_function=_link)

    def _forget_old_runs(self) -> None:
        """Drop other runs' state that nothing has touched for KEEP_DAYS: each takes ten model sizes
        of disk."""
        oldest = time.time() - KEEP_DAYS * 86_400
        for path in self.folder.parent.glob("run-*"):
            if path != self.folder and path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)

    def _load(self, number: int) -> Slot | None:
        path = self._path(number)
        try:
            about = dict(json.loads((path / MANIFEST).read_bytes()))
            if about.pop(SEAL) != _seal(about) or about["round"] != number or about["sha256"] != sha256(path / STATE):
                return None
            return _unpack(load_file(path / STATE), about)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError):
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:06d}"


def _seal(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _pack(slot: Slot) -> dict[str, Tensor]:
    tensors = {"replica.weights": slot.replica.weights, "replica.momentum": slot.replica.momentum}
    tensors |= {f"uplink/{name}": value for name, value in slot.uplink.items()}
    tensors |= {f"optimiser/{name}": value for name, value in slot.optimiser.items()}
    tensors |= {f"local/{name}": value for name, value in slot.local.items()}
    tensors |= {f"teacher/{name}": value for name, value in slot.personal.teacher.items()}
    if slot.personal.trained is not None:
        tensors["trained"] = slot.personal.trained
    if slot.personal.scaler is not None:
        tensors["scaler"] = torch.tensor(slot.personal.scaler, dtype=torch.float64)
    # Contiguous clones: safetensors refuses channels-last tensors and two names for one memory.
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _unpack(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> Slot:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    replica = Replica(about["version"], tensors["replica.weights"], tensors["replica.momentum"])
    scaler = float(tensors["scaler"]) if "scaler" in tensors else None
    personal = PersonalModels(tensors.get("trained"), scaler, under("teacher/"))
    return Slot(about["round"], replica, under("uplink/"), under("optimiser/"), under("local/"), personal)
