"""What a downstream task found out, and its file: numbers and evidence, written and read without
pickling."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fedsense_core.atomic_io import write_whole
from fedsense_core.errors import FedSenseError
from fedsense_core.tools.downstream.evidence import ConfusionEvidence, DetectionEvidence
from fedsense_core.tools.downstream.names import Mode, TaskName

KINDS: dict[str, type[ConfusionEvidence] | type[DetectionEvidence]] = {
    "confusion": ConfusionEvidence,
    "detection": DetectionEvidence,
}
WORDS = ("task", "data", "mode", "head", "metric", "note")


@dataclass(frozen=True)
class TaskResult:
    """One encoder on one task in one way, once for each seed."""

    task: TaskName
    data: str
    """Name of the data set."""
    mode: Mode
    head: str
    """What stood on the encoder, such as ``knn``, ``linear``, ``upernet``, ``fcos``,
    ``difference``."""
    metric: str
    """The main one of ``scores``, which ``evidence`` computes: ``macro-f1``, ``mean-iou``,
    ``map-50``, ``f1``."""
    scores: tuple[dict[str, float], ...]
    """For each seed, values by metric, between 0 and 1."""
    evidence: tuple[ConfusionEvidence | DetectionEvidence, ...] = field(repr=False)
    """For each seed."""
    note: str = ""
    """What every table must say of it, such as labels that no human made."""

    @property
    def key(self) -> str:
        """What tells it from the other results of an encoder."""
        return f"{self.task}/{self.data}/{self.mode}/{self.head}"

    @property
    def value(self) -> float:
        """Mean of the main metric over seeds."""
        return float(np.mean([scores[self.metric] for scores in self.scores]))


def save_results(path: Path, results: Sequence[TaskResult]) -> None:
    """Write results to one ``.npz`` file, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for i, result in enumerate(results):
        entry = {key: getattr(result, key) for key in WORDS} | {"scores": result.scores, "evidence": []}
        for j, one in enumerate(result.evidence):
            kind = next(name for name, which in KINDS.items() if isinstance(one, which))
            words = {key: value for key, value in vars(one).items() if not isinstance(value, np.ndarray)}
            entry["evidence"].append({"kind": kind, **words})
            arrays |= {f"{i}.{j}.{key}": value for key, value in vars(one).items() if isinstance(value, np.ndarray)}
        entries.append(entry)
    file = io.BytesIO()
    np.savez_compressed(file, entries=np.frombuffer(json.dumps(entries).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    write_whole(path, file.getvalue())


def load_results(path: Path) -> list[TaskResult]:
    """Read what ``save_results`` wrote. Raises FedSenseError where it is something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = json.loads(file["entries"].tobytes())
            return [_result(entry, i, file) for i, entry in enumerate(entries)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise FedSenseError(
            f"{path} holds no results of `fedsense evaluate` ({error}): delete it, and run again"
        ) from error


def _result(entry: dict[str, Any], position: int, file: Mapping[str, np.ndarray]) -> TaskResult:
    evidence: list[ConfusionEvidence | DetectionEvidence] = []
    for j, words in enumerate(entry["evidence"]):
        which = KINDS[words.pop("kind")]
        words["groups"] = tuple(words["groups"])
        start = f"{position}.{j}."
        words |= {key.removeprefix(start): file[key] for key in file if key.startswith(start)}
        evidence.append(which(**words))
    return TaskResult(**{key: entry[key] for key in WORDS}, scores=tuple(entry["scores"]), evidence=tuple(evidence))
