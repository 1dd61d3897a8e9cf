"""``fedsense benchmark``: what is left of a matrix, each trial in a process of its own; then tables
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
from fedsense_core.tools.benchmark.collection import collect
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix, load_matrix, local_path
from fedsense_core.tools.benchmark.scheduling import Limits, Progress, run_trials
from fedsense_core.tools.benchmark.summary import summarise
from fedsense_core.tools.benchmark.trials import PATHS, Trial, check_trials, trials_of
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
    """A matrix, its trials and its folder. Make one with ``open``."""

    matrix: Matrix
    trials: list[Trial]
    manifest: Manifest
    folder: Path
    """Of the file, to which its paths are relative."""
    choices: Choices

    @classmethod
    def open(cls, path: Path, out: Path, choices: Choices) -> Benchmark:
        """Read everything and check it. Raises ConfigError or CheckpointError naming what is
        wrong."""
        matrix = load_matrix(path)
        trials = trials_of(matrix, choices.only)
        if not trials:
            raise ConfigError(f"--only {choices.only!r} fits no trial; --dry-run without it lists them")
        check_trials(matrix, trials)
        if matrix.engine == "simulation" and (choices.jobs or 1) > 1:
            raise ConfigError("--jobs: Flower's simulation takes the whole machine: one trial at a time")
        return cls(matrix, trials, Manifest.open(out.expanduser().absolute()), path.absolute().parent, choices)

    @property
    def tasks(self) -> dict[str, Any]:
        """What each task's metrics depend on."""
        return {name: task.definition for name, task in self.matrix.tasks.items()}

    @property
    def data(self) -> dict[str, str]:
        """Where the data of each task are. Raises ConfigError for a path that ``--data`` must
        give."""
        given = self.choices.data
        return {name: local_path(task.data, self.folder, given) for name, task in self.matrix.tasks.items()}

    def left(self) -> list[tuple[Trial, str]]:
        """Return the trials that are to be run or evaluated, and why."""
        reasons = [(trial, self.manifest.why_not_done(trial, self.tasks)) for trial in self.trials]
        return [(trial, why) for trial, why in reasons if why]

    def check_paths(self) -> None:
        """Raise ConfigError for the first path that is not there."""
        found = dict(self.data)
        for trial in self.trials:
            settings = trial.local_settings(self.folder, self.choices.data)
            found |= {f"{trial.column}: {key}": str(settings[key]) for key in PATHS if key in settings}
        for where, path in found.items():
            if path not in ("", "sample") and not Path(path).exists():
                raise ConfigError(f"{where}: {path} is not there")

    def order(self, trial: Trial) -> dict[str, Any]:
        """Return all that the process of a trial must know. Raises what planning its runs
        raises."""
        settings: dict[str, Any] = trial.local_settings(self.folder, self.choices.data)
        folder = self.manifest.trial_folder(trial)
        jobs = []
        if not trial.method.untrained:
            try:
                jobs = plan(Request(trial.method.based_on, settings, folder))
            except CheckpointError:  # all its runs are finished: it is evaluated only
                jobs = []
        return {
            "folder": str(folder),
            "engine": self.matrix.engine,
            "untrained": trial.method.untrained,
            "settings": {**settings, "preset": trial.method.based_on},
            "jobs": [asdict(job) | {"folder": str(job.folder)} for job in jobs],
            "tasks": self.tasks,
            "data": self.data,
            "analyse": self.matrix.analyse,
            "prune": self.matrix.prune,
        }


@dataclass(frozen=True)
class TrialProcess:
    """A trial at work."""

    child: subprocess.Popen[str]

    def poll(self) -> int | None:
        """Return the exit status, None while it works."""
        return self.child.poll()

    def end(self) -> None:
        """End it now; the next start goes on from its last whole round."""
        end_child(self.child)


@dataclass(frozen=True)
class Refused:
    """A trial that could not be started."""

    def poll(self) -> int | None:
        """Return a status of failure."""
        return FAILED

    def end(self) -> None:
        """Do nothing: nothing runs."""


class Session:
    """One invocation: starts trials from a copy of the code that nothing changes, and notes what
    becomes of them."""

    def __init__(self, benchmark: Benchmark, home: Path, console: Console) -> None:
        self.benchmark, self.home, self.console = benchmark, home, console
        self.app = assemble(home / "fedsense-app")
        self._reasons: dict[str, str] = {}

    def start(self, trial: Trial) -> TrialProcess | Refused:
        """Start a trial, or say why that is not possible."""
        manifest = self.benchmark.manifest
        manifest.begin(trial, self.benchmark.tasks, source_digest())
        try:
            order = self.benchmark.order(trial)
        except FedSenseError as error:
            self._reasons[trial.name] = str(error)
            return Refused()
        order_file, log = self._file(trial, "json"), manifest.log_file(trial)
        order_file.write_text(json.dumps(order), encoding="utf-8")
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(order_file), str(self._file(trial, "txt"))]
        with log.open("a", encoding="utf-8") as output:
            child = start_child(
                "fedsense_core.tools.benchmark.trial_process",
                arguments,
                self.app,
                self.benchmark.matrix.threads,
                output,
            )
        return TrialProcess(child)

    def ended(self, trial: Trial, done: bool, reason: str, seconds: float, progress: Progress[Trial]) -> None:
        """Note and show what has become of a trial."""
        manifest = self.benchmark.manifest
        if not done:
            said = self._file(trial, "txt")
            reason = reason or self._reasons.get(trial.name, "")
            reason = reason or (said.read_text(encoding="utf-8") if said.exists() else "it was ended from outside")
            reason = f"{reason} (log: {manifest.log_file(trial)})"
        manifest.end(trial, done, reason, seconds)
        number = len(progress.done) + len(progress.failed)
        left = progress.remaining_s
        rest = f" · about {human_seconds(left)} left" if left else ""
        state = "" if done else f" [red]failed[/red]: {escape(reason)}"
        self.console.print(f"{number}/{progress.total} {escape(trial.name)} · {human_seconds(seconds)}{rest}{state}")

    def _file(self, trial: Trial, suffix: str) -> Path:
        return self.home / f"{trial.name.replace('/', '-')}.{suffix}"


def run_benchmark(benchmark: Benchmark, console: Console) -> int:
    """Run what is left, write tables and plots, and say what is left then. Returns the exit
    status."""
    benchmark.check_paths()
    matrix, choices = benchmark.matrix, benchmark.choices
    limits = Limits(choices.jobs or matrix.jobs, 60 * choices.limit_minutes, matrix.trial_timeout_s)
    home = Path(tempfile.mkdtemp(prefix="fedsense-"))
    try:
        with terminate_as_interrupt(), only_one(benchmark.manifest.folder):
            # Again, now that nobody else writes it: another start may have ended in between.
            benchmark = replace(benchmark, manifest=Manifest.open(benchmark.manifest.folder))
            waiting = benchmark.left()
            console.print(f"[bold]{escape(matrix.title)}[/bold]: {len(benchmark.trials)} trials, {len(waiting)} to do")
            session = Session(benchmark, home, console)
            progress = run_trials([trial for trial, _ in waiting], session.start, session.ended, limits)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on with what is left")
        return INTERRUPTED
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if progress.left:
        console.print(f"time is up: {len(progress.left)} trials are left; the same command goes on with them")
    if progress.failed:
        console.print(f"[red]{len(progress.failed)} trials failed[/red]; the same command tries them again")
    try:
        write_tables(benchmark, console)
    except FedSenseError as error:
        console.print(f"no tables: {escape(str(error))}")
    return FAILED if progress.failed else LEFT if progress.left else DONE


def write_tables(benchmark: Benchmark, console: Console) -> None:
    """Make tables and plots from all trials of the matrix that are done. Raises FedSenseError where
    none is."""
    everything = trials_of(benchmark.matrix)
    summary = summarise(benchmark.matrix, collect(benchmark.matrix, everything, benchmark.manifest))
    for path in write_results(benchmark.manifest.folder, summary):
        console.print(escape(str(path)))


def show_plan(benchmark: Benchmark, console: Console) -> None:
    """Print every trial and why it is to be run."""
    waiting = {trial.name: why for trial, why in benchmark.left()}
    for trial in benchmark.trials:
        console.print(f"{escape(trial.name)}: {escape(waiting.get(trial.name, 'done'))}")
    console.print(f"{len(benchmark.trials)} trials, {len(waiting)} to do")


def parse_data(pairs: Sequence[str]) -> dict[str, Path]:
    """Turn ``NAME=PATH`` texts into paths. Raises ConfigError for another text."""
    given = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--data {pair!r} is not of the form NAME=PATH")
        given[name.strip()] = Path(path.strip())
    return given
