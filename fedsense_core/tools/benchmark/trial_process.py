"""One trial of a benchmark, in a process of its own: its runs, its evaluations, its analysis, and
what is deleted then.

Run as ``python -m fedsense_core.tools.benchmark.trial_process ORDER.json REASON.txt`` in an app
folder; the second file is written where the trial fails. An order that was cut short goes on where
it was.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, assert_never

from fedsense_core.config import FREE_KEYS, resolve
from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import RunFolder, write_json
from fedsense_core.tools.benchmark.matrix import Engine, Task
from fedsense_core.tools.benchmark.trial_evaluation import evaluate_trial, export_untrained, prune, run_folders
from fedsense_core.tools.reporting.run_report import report_at_the_end
from fedsense_core.tools.runner.child import do_or_tell
from fedsense_core.tools.runner.in_process import run_federation
from fedsense_core.tools.runner.planning import Job, Resources
from fedsense_core.tools.runner.simulation import open_simulation


def do_trial(order: dict[str, Any]) -> None:
    """Do what is left of an order. Raises what a run or a task raises."""
    folder = Path(order["folder"])
    jobs = [Job(**job | {"folder": Path(job["folder"])}) for job in order["jobs"]]
    if order["untrained"] and not run_folders(folder):
        export_untrained(resolve(order["settings"]), folder)
    _run(order["engine"], [job for job in jobs if not job.is_finished])
    tasks = {name: Task(**entry) for name, entry in order["tasks"].items()}
    evaluate_trial(folder, tasks, order["data"])
    if order["analyse"] and not order["untrained"]:
        _analyse(folder)
    if order["prune"]:
        prune(folder)


def _run(engine: Engine, jobs: list[Job]) -> None:
    for job in jobs:
        _forget_what_cannot_go_on(job)
    match engine:
        case "in-process":
            for job in jobs:
                run_federation(job.settings, job.supernodes)
                report_at_the_end(RunFolder(job.folder), print)
        case "simulation":
            if jobs:
                with open_simulation() as simulation:
                    for job in jobs:
                        simulation.run(job, Resources.shared_by(job.supernodes), lambda line: print(line, end=""))
                        report_at_the_end(RunFolder(job.folder), print)
        case _:
            assert_never(engine)


def _forget_what_cannot_go_on(job: Job) -> None:
    """Delete an unfinished run of other settings, such as of a release that knew fewer: it would
    refuse to continue."""
    if RunFolder.exists(job.folder):
        try:
            RunFolder.open(job.folder, resolve(job.settings).model_dump(mode="json"), free=FREE_KEYS)
        except CheckpointError as error:
            print(f"started anew: {error}")
            shutil.rmtree(job.folder)


def _analyse(folder: Path) -> None:
    """Analyse every run that can be: evaluations stay good without, where models were pruned or
    have diverged."""
    from fedsense_core.tools.analysis.analyse import analyse_run
    from fedsense_core.tools.analysis.analysis_options import AnalysisOptions

    for path in run_folders(folder):
        run = RunFolder(path)
        if not run.analysis_file.exists():
            try:
                write_json(run.analysis_file, analyse_run(path, AnalysisOptions()))
            except CheckpointError as error:
                print(f"not analysed: {error}")


def main(order_file: str, reason_file: str) -> int:
    """Do the order of a file. Returns the exit status."""
    return do_or_tell(lambda: do_trial(json.loads(Path(order_file).read_text(encoding="utf-8"))), reason_file)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
