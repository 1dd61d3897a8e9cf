"""``fedsense benchmark``: what is left of a matrix, each cell in a process of its own; then tables
and plots."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from fedsense_core.atomic_io import only_one
from fedsense_core.errors import CheckpointError, ConfigError, FedSenseError
from fedsense_core.fingerprint import source_digest
from fedsense_core.run_folder.formatting import human_seconds
from fedsense_core.tools.benchmark.benchmark_page import write_results
from fedsense_core.tools.benchmark.collection import gather
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix, load_matrix, placed
from fedsense_core.tools.benchmark.scheduling import Limits, Progress, run_cells
from fedsense_core.tools.benchmark.summary import summarise
from fedsense_core.tools.benchmark.trials import PATHS, Cell, cells_of, check_cells
from fedsense_core.tools.runner.app_folder import assemble
from fedsense_core.tools.runner.child import end_child, start_child
from fedsense_core.tools.runner.planning import Request, plan
from fedsense_core.tools.runner.processes import terminate_as_interrupt

DONE, FAILED, LEFT, INTERRUPTED = 0, 1, 3, 130


@dataclass(frozen=True)
class Choices:
    """The options of the command."""

    jobs: int | None = None
    limit_minutes: float = 150.0
    only: str = "*"
    data: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A matrix, its cells and its folder. Make one with ``open``."""

    matrix: Matrix
    cells: list[Cell]
    manifest: Manifest
    folder: Path
    """Of the file, to which its paths are relative."""
    choices: Choices

    @classmethod
    def open(cls, path: Path, out: Path, choices: Choices) -> Benchmark:
        """Read everything and check it. Raises ConfigError or CheckpointError naming what is
        wrong."""
        matrix = load_matrix(path)
        cells = cells_of(matrix, choices.only)
        if not cells:
            raise ConfigError(f"--only {choices.only!r} fits no cell; --dry-run without it lists them")
        check_cells(matrix, cells)
        if matrix.engine == "simulation" and (choices.jobs or 1) > 1:
            raise ConfigError("--jobs: Flower's simulation takes the whole machine: one cell at a time")
        return cls(matrix, cells, Manifest.open(out.expanduser().absolute()), path.absolute().parent, choices)

    @property
    def tasks(self) -> dict[str, Any]:
        """What each task's figures depend on."""
        return {name: task.figures for name, task in self.matrix.tasks.items()}

    @property
    def data(self) -> dict[str, str]:
        """Where the data of each task are. Raises ConfigError for a path that ``--data`` must
        give."""
        given = self.choices.data
        return {name: placed(task.data, self.folder, given) for name, task in self.matrix.tasks.items()}

    def left(self) -> list[tuple[Cell, str]]:
        """Return the cells that are to be run or graded, and why."""
        reasons = [(cell, self.manifest.why_not_done(cell, self.tasks)) for cell in self.cells]
        return [(cell, why) for cell, why in reasons if why]

    def check_paths(self) -> None:
        """Raise ConfigError for the first path that is not there."""
        found = dict(self.data)
        for cell in self.cells:
            settings = cell.placed_settings(self.folder, self.choices.data)
            found |= {f"{cell.column}: {key}": str(settings[key]) for key in PATHS if key in settings}
        for where, path in found.items():
            if path not in ("", "sample") and not Path(path).exists():
                raise ConfigError(f"{where}: {path} is not there")

    def order(self, cell: Cell) -> dict[str, Any]:
        """Return all that the process of a cell must know. Raises what planning its runs raises."""
        settings: dict[str, Any] = cell.placed_settings(self.folder, self.choices.data)
        folder = self.manifest.cell_folder(cell)
        jobs = []
        if not cell.method.untrained:
            try:
                jobs = plan(Request(cell.method.based_on, settings, folder))
            except CheckpointError:  # all its runs are finished: it is graded only
                jobs = []
        return {
            "folder": str(folder),
            "engine": self.matrix.engine,
            "untrained": cell.method.untrained,
            "settings": {**settings, "preset": cell.method.based_on},
            "jobs": [asdict(job) | {"folder": str(job.folder)} for job in jobs],
            "tasks": self.tasks,
            "data": self.data,
            "analyse": self.matrix.analyse,
            "prune": self.matrix.prune,
        }


@dataclass(frozen=True)
class CellProcess:
    """A cell at work."""

    child: subprocess.Popen[str]

    def poll(self) -> int | None:
        """Return the exit status, None while it works."""
        return self.child.poll()

    def end(self) -> None:
        """End it now; the next start goes on from its last whole round."""
        end_child(self.child)


@dataclass(frozen=True)
class Refused:
    """A cell that could not be started."""

    def poll(self) -> int | None:
        """Return a status of failure."""
        return FAILED

    def end(self) -> None:
        """Do nothing: nothing runs."""


class Session:
    """One invocation: starts cells from a copy of the code that nothing changes, and notes what
    becomes of them."""

    def __init__(self, benchmark: Benchmark, home: Path, console: Console) -> None:
        self.benchmark, self.home, self.console = benchmark, home, console
        self.app = assemble(home / "fedsense-app")
        self._reasons: dict[str, str] = {}

    def start(self, cell: Cell) -> CellProcess | Refused:
        """Start a cell, or say why that is not possible."""
        manifest = self.benchmark.manifest
        manifest.begin(cell, self.benchmark.tasks, source_digest())
        try:
            order = self.benchmark.order(cell)
        except FedSenseError as error:
            self._reasons[cell.name] = str(error)
            return Refused()
        order_file, log = self._file(cell, "json"), manifest.log_file(cell)
        order_file.write_text(json.dumps(order), encoding="utf-8")
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(order_file), str(self._file(cell, "txt"))]
        with log.open("a", encoding="utf-8") as output:
            child = start_child(
                "fedsense_core.tools.benchmark.trial_process",
                arguments,
                self.app,
                self.benchmark.matrix.threads,
                output,
            )
        return CellProcess(child)

    def ended(self, cell: Cell, done: bool, reason: str, seconds: float, progress: Progress[Cell]) -> None:
        """Note and show what has become of a cell."""
        manifest = self.benchmark.manifest
        if not done:
            said = self._file(cell, "txt")
            reason = reason or self._reasons.get(cell.name, "")
            reason = reason or (said.read_text(encoding="utf-8") if said.exists() else "it was ended from outside")
            reason = f"{reason} (log: {manifest.log_file(cell)})"
        manifest.end(cell, done, reason, seconds)
        number = len(progress.done) + len(progress.failed)
        left = progress.remaining_s
        rest = f" · about {human_seconds(left)} left" if left else ""
        state = "" if done else f" [red]failed[/red]: {escape(reason)}"
        self.console.print(f"{number}/{progress.total} {escape(cell.name)} · {human_seconds(seconds)}{rest}{state}")

    def _file(self, cell: Cell, suffix: str) -> Path:
        return self.home / f"{cell.name.replace('/', '-')}.{suffix}"


def run_benchmark(benchmark: Benchmark, console: Console) -> int:
    """Run what is left, write tables and plots, and say what is left then. Returns the exit
    status."""
    benchmark.check_paths()
    matrix, choices = benchmark.matrix, benchmark.choices
    limits = Limits(choices.jobs or matrix.jobs, 60 * choices.limit_minutes, matrix.cell_timeout_s)
    home = Path(tempfile.mkdtemp(prefix="fedsense-"))
    try:
        with terminate_as_interrupt(), only_one(benchmark.manifest.folder):
            # Again, now that nobody else writes it: another start may have ended in between.
            benchmark = replace(benchmark, manifest=Manifest.open(benchmark.manifest.folder))
            waiting = benchmark.left()
            console.print(f"[bold]{escape(matrix.title)}[/bold]: {len(benchmark.cells)} cells, {len(waiting)} to do")
            session = Session(benchmark, home, console)
            progress = run_cells([cell for cell, _ in waiting], session.start, session.ended, limits)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on with what is left")
        return INTERRUPTED
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if progress.left:
        console.print(f"time is up: {len(progress.left)} cells are left; the same command goes on with them")
    if progress.failed:
        console.print(f"[red]{len(progress.failed)} cells failed[/red]; the same command tries them again")
    try:
        write_tables(benchmark, console)
    except FedSenseError as error:
        console.print(f"no tables: {escape(str(error))}")
    return FAILED if progress.failed else LEFT if progress.left else DONE


def write_tables(benchmark: Benchmark, console: Console) -> None:
    """Make tables and plots from all cells of the matrix that are done. Raises FedSenseError where
    none is."""
    everything = cells_of(benchmark.matrix)
    summary = summarise(benchmark.matrix, gather(benchmark.matrix, everything, benchmark.manifest))
    for path in write_results(benchmark.manifest.folder, summary):
        console.print(escape(str(path)))


def show_plan(benchmark: Benchmark, console: Console) -> None:
    """Print every cell and why it is to be run."""
    waiting = {cell.name: why for cell, why in benchmark.left()}
    for cell in benchmark.cells:
        console.print(f"{escape(cell.name)}: {escape(waiting.get(cell.name, 'done'))}")
    console.print(f"{len(benchmark.cells)} cells, {len(waiting)} to do")


def parse_data(pairs: Sequence[str]) -> dict[str, Path]:
    """Turn ``NAME=PATH`` texts into paths. Raises ConfigError for another text."""
    given = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--data {pair!r} is not of the form NAME=PATH")
        given[name.strip()] = Path(path.strip())
    return given
