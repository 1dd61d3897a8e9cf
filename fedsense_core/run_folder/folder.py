"""What a run leaves behind: one folder with its configuration, its metrics, its checkpoints and its
report.

``metrics.jsonl`` holds one JSON object a round, each line synced to disk before the next round
begins. A process that is killed while writing leaves a torn last line, which readers pass over and
the next line written replaces.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsense_core.atomic_io import sync, write_whole
from fedsense_core.errors import CheckpointError

FROM_THE_STARTER = ("settings.toml", "flower.toml", "flower.log")
"""Files of whoever starts a run: its settings, with which it can be continued, and its log."""
Metrics = dict[str, Any]
"""One line of ``metrics.jsonl``."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Make one with ``create`` or ``open``."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration, JSON."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a round."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """Folder of the exported encoder."""
        return self.path / "encoder"

    @property
    def models(self) -> Path:
        """Folder of the last round's models, for ``fedsense analyse``."""
        return self.path / "models"

    @property
    def analysis_file(self) -> Path:
        """What ``fedsense analyse`` measured, JSON."""
        return self.path / "analysis.json"

    @property
    def pictures_file(self) -> Path:
        """The pictures of the report, so that it can be written again where the imagery is not,
        JSON."""
        return self.path / "pictures.json"

    @property
    def report_file(self) -> Path:
        """The report a person reads."""
        return self.path / "report.html"

    @property
    def status_file(self) -> Path:
        """What the run is doing while it goes on, JSON; for people."""
        return self.path / "status.json"

    @property
    def continued_file(self) -> Path:
        """Which finished run this one goes on from, JSON; where it goes on from none, there is no
        file."""
        return self.path / "continued.json"

    @property
    def finished_file(self) -> Path:
        """Exists once the run has ended."""
        return self.path / "finished.json"

    @property
    def is_finished(self) -> bool:
        """True once ``finish`` was called."""
        return self.finished_file.is_file()

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Return whether ``path`` holds a run, finished or not."""
        return (Path(path) / "config.json").is_file()

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Start a run in ``path``, which must be new or empty. Raises CheckpointError when it is
        neither."""
        run = cls(Path(path))
        if run.is_finished:
            raise CheckpointError(f"{path} holds a finished run: choose another run.folder, or move that one away.")
        if cls.exists(path):
            raise CheckpointError(
                f'{path} holds an unfinished run: continue it with run.resume = "auto", or choose another run.folder.'
            )
        if run.path.exists() and not _is_empty(run.path):
            raise CheckpointError(f"{path} is not an empty folder and holds no run: choose another run.folder.")
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        # Last, and whole or absent: a folder with config.json is a run.
        run.write_config(config)
        return run

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any] | None = None, free: Collection[str] = ()) -> RunFolder:
        """Open the run in ``path``: to read it, or, with ``config``, to continue it under that
        configuration.

        ``free`` are dotted keys that may differ from those the run was started with, such as
        "run.resume". Raises CheckpointError when there is no run, and, with ``config``, when it is
        finished or had other settings.
        """
        run = cls(Path(path))
        if not cls.exists(path):
            raise CheckpointError(f"{path} holds no run (no config.json): check the path, or start a new run there.")
        if config is not None:
            if run.is_finished:
                raise CheckpointError(f"{path} holds a finished run: choose another run.folder, or move it away.")
            run.check_settings(config, free)
        return run

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration, whole or not at all."""
        write_json(self.config_file, config)

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration. Raises CheckpointError when the file is damaged."""
        try:
            return dict(json.loads(self.config_file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.config_file} is damaged ({error}): choose another run.folder.") from error

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add one line and wait until it is on disk. Numbers that are not finite are written as
        null."""
        is_new = not self.metrics_file.exists()
        self._drop_torn_line()
        with self.metrics_file.open("ab") as file:
            file.write(_encode(metrics))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync(self.path)

    def replace_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Put the lines of another run in place of what is there, whole or not at all."""
        write_whole(self.metrics_file, b"".join(map(_encode, lines)))

    def read_metrics(self) -> list[Metrics]:
        """Return all whole lines, oldest first. Raises CheckpointError naming a line that is
        damaged."""
        lines = [_line(line) for line in self._whole_lines()]
        if None in lines:
            raise CheckpointError(
                f"line {lines.index(None) + 1} of {self.metrics_file} is not JSON with a round: restore the file, or "
                "delete that line."
            )
        return [line for line in lines if line is not None]

    def truncate_after(self, round: int) -> None:
        """Drop the lines of all rounds after ``round``: a resumed run writes them again."""
        left = [metrics for metrics in self.read_metrics() if metrics["round"] <= round]
        write_whole(self.metrics_file, b"".join(_encode(metrics) for metrics in left))

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Mark the run as ended, so that nothing overwrites or continues it."""
        write_json(self.finished_file, summary or {})

    def check_settings(self, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
        """Raise CheckpointError where the run was started with other settings than ``config``,
        apart from the ``free`` keys."""
        asked, started = _flat(json.loads(_encode(config))), _flat(self.read_config())
        keys = (asked.keys() | started.keys()) - set(free)
        if differing := sorted(key for key in keys if asked.get(key, ...) != started.get(key, ...)):
            changes = ", ".join(f"{k} = {started.get(k)!r} then, {asked.get(k)!r} now" for k in differing[:5])
            raise CheckpointError(
                f"{self.path} was started with other settings ({changes}): use the same ones, or another run.folder."
            )

    def _whole_lines(self) -> list[bytes]:
        content = self.metrics_file.read_bytes() if self.metrics_file.exists() else b""
        return content.split(b"\n")[:-1]

    def _drop_torn_line(self) -> None:
        size = sum(len(line) + 1 for line in self._whole_lines())
        if self.metrics_file.exists() and size != self.metrics_file.stat().st_size:
            os.truncate(self.metrics_file, size)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to a file, whole or not at all. Numbers that are not finite are written as
    null."""
    write_whole(path, _encode(value, indent=2))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_json` wrote, None where there is no file. Raises CheckpointError for a
    damaged one."""
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it, or delete it and make it again.") from error


def _is_empty(path: Path) -> bool:
    """Return whether ``path`` is a folder with nothing in it but what a killed ``create`` may
    leave, and what whoever starts a run puts there first."""
    if not path.is_dir():
        return False
    return all(
        child.name in (".config.json.tmp", *FROM_THE_STARTER)
        or (child.name == "checkpoints" and child.is_dir() and not any(child.iterdir()))
        for child in path.iterdir()
    )


def _encode(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    return (json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=True) + "\n").encode()


def _finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as None: JSON has no word for them and other readers
    refuse them."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(line: bytes) -> Metrics | None:
    """Return one line of the record, None where it is damaged."""
    try:
        found = dict(json.loads(line))
    except (ValueError, TypeError):
        return None
    return found if isinstance(found.get("round"), int) else None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
