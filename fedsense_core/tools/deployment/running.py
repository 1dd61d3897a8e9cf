"""Runs a training to its end and says how it ended: once, or again and again until it is complete.

Exit status of `fedsense coordinator run` and `resume`, for a systemd unit: 0 complete, 1 failed (a
new start may help), 2 cannot start (a new start does not help), 3 stopped by `fedsense coordinator
stop`, 130 the command was interrupted and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.deployment.control import NoAnswer, RunState, connect
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.training import Training, follow, recall, remember, start, under_way
from fedsense_core.tools.reporting.run_report import report_at_the_end
from fedsense_core.tools.runner.engine import LOG

COMPLETE, FAILED, STOPPED, INTERRUPTED = 0, 1, 3, 130
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
MOST_FAILURES = 8
"""In a row without one more round: then a person has to look."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Ear:
    """Where a run's log and the command's own words go."""

    show: Say
    """Lines of the run's log."""
    say: Say
    """What the command itself has to say."""
    warn: Say


def run(folder: CoordinatorFolder, training: Training, ear: Ear, restart: bool = False) -> int:
    """Start a run, or join the one that is under way in its folder; return the exit status.

    With ``restart``, a run that fails is started again after growing pauses, as long as it gets
    further. Raises DeploymentError or ConfigError where it cannot start.
    """
    if training.run.is_finished:
        ear.say(f"the run is complete: {training.folder}")
        return COMPLETE
    training.resolved()
    pause, failures = FIRST_PAUSE_S, 0
    while True:
        rounds = _rounds(training.run)
        status = _once(folder, training, ear)
        if status != FAILED or not restart:
            return status
        if _rounds(training.run) > rounds:
            pause, failures = FIRST_PAUSE_S, 0
        failures += 1
        if failures > MOST_FAILURES:
            ear.warn(f"{MOST_FAILURES} new starts brought no further round: it is not started again")
            return FAILED
        ear.say(f"it is started again in {pause:g} s, and continues after its last whole round")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def resume(folder: CoordinatorFolder, path: Path | None, ear: Ear, restart: bool = False) -> int:
    """Continue the run in a folder, or the newest run, with the settings that it was started with;
    return the exit status."""
    return run(folder, recall(path or _newest(folder)), ear, restart)


def stop(folder: CoordinatorFolder, path: Path | None) -> list[RunState]:
    """Stop the run in a folder, or all that are under way; return them."""
    with connect(folder) as control:
        runs = under_way(control, path.expanduser().absolute() if path else None)
        for one in runs:
            control.stop(one.run_id)
    return runs


def _once(folder: CoordinatorFolder, training: Training, ear: Ear) -> int:
    with connect(folder) as control:
        present = under_way(control, training.folder)
        if present:
            ear.say(f"the run is under way (Flower's number {present[0].run_id}): {training.folder}")
            run_id = present[0].run_id
        else:
            run_id = start(control, remember(training), folder)
            ear.say(f"run folder: {training.folder} (Flower's number of the run: {run_id})")
    try:
        state = follow(folder, run_id, ear.show, training.folder / LOG)
    except KeyboardInterrupt:
        ear.warn("the run goes on: `fedsense coordinator resume` shows it, `fedsense coordinator stop` stops it")
        return INTERRUPTED
    except NoAnswer as error:
        ear.warn(f"{error} The run may go on.")
        return FAILED
    return _end(state, training, ear)


def _end(state: RunState, training: Training, ear: Ear) -> int:
    if state.status == "finished:completed":
        ear.say(f"the run is complete: {training.folder}")
        if training.resolved().run.report:
            report_at_the_end(training.run, ear.warn)
        return COMPLETE
    if state.status == "finished:stopped":
        ear.say("the run was stopped: `fedsense coordinator resume` continues it")
        return STOPPED
    ear.warn(f"the run failed: {state.details or 'Flower gives no reason'}")
    return FAILED


def _rounds(run: RunFolder) -> int:
    try:
        return len(run.read_metrics()) if run.metrics_file.exists() else 0
    except FedSenseError:
        return 0


def _newest(folder: CoordinatorFolder) -> Path:
    with connect(folder) as control:
        runs = [run for run in control.runs() if run.folder]
    if not runs:
        raise DeploymentError("the SuperLink knows no run: name its folder, `fedsense coordinator resume RUN_FOLDER`")
    return Path(runs[0].folder)
