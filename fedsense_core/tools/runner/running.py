"""Runs jobs one after the other and tells a person how they went."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fedsense_core.errors import FedSenseError
from fedsense_core.full_disk import naming_full_disk
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.tools.reporting.run_report import report_at_the_end
from fedsense_core.tools.runner.engine import TEMPORARY, Engine, count
from fedsense_core.tools.runner.in_process import open_in_process
from fedsense_core.tools.runner.log_lines import LogLines
from fedsense_core.tools.runner.planning import Job, Request, Resources
from fedsense_core.tools.runner.processes import terminate_as_interrupt
from fedsense_core.tools.runner.simulation import open_simulation

DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass
class Display:
    """Where the words go."""

    console: Console
    errors: Console
    verbose: bool = False
    lines: LogLines = field(default_factory=LogLines)

    def line(self, line: str) -> None:
        """Show one line of Flower's log."""
        text = line.rstrip("\n") if self.verbose else self.lines.tidy(line)
        if text is not None:
            self.console.print(Text.from_ansi(text), style="yellow" if text.startswith("warning:") else None)

    def say(self, text: str) -> None:
        """Show a line of our own."""
        self.console.print(text)

    def warn(self, text: str) -> None:
        """Show what went wrong beside a run that is complete."""
        self.errors.print(f"[yellow]{escape(text)}[/yellow]")

    def complain(self, text: str) -> None:
        """Show why something did not work."""
        self.errors.print(f"[red]error:[/red] {escape(text)}")


def run_jobs(
    jobs: Sequence[Job], request: Request, per_client: tuple[int | None, float | None], display: Display
) -> int:
    """Run every job that is not finished. Returns the exit status."""
    try:
        temporary = naming_full_disk(Path(gettempdir()), TEMPORARY)
        with terminate_as_interrupt(), temporary, open_engine(request) as engine:
            for job in jobs:
                _run(job, engine, Resources.shared_by(job.supernodes, *per_client), display)
    except KeyboardInterrupt:
        display.complain("interrupted. The same command continues after the last finished round")
        return INTERRUPTED
    except FedSenseError as error:
        display.complain(str(error))
        return FAILED
    return DONE


def open_engine(request: Request) -> AbstractContextManager[Engine]:
    """Start what runs the jobs of a request."""
    if request.engine == "in-process":
        return open_in_process(request.flower_toml, request.threads)
    return open_simulation(request.flower_toml)


def _run(job: Job, engine: Engine, resources: Resources, display: Display) -> None:
    folder = escape(str(job.folder))
    if job.is_finished:
        display.say(f"[bold]{escape(job.title)}[/bold]: already finished, in {folder}")
        return
    rounds = count(job.rounds, "round")
    display.say(f"[bold]{escape(job.title)}[/bold]: {rounds}, {engine.describe(job, resources)}")
    display.say(f"run folder {folder}")
    engine.run(job, resources, display.line)
    run = RunFolder(job.folder)
    display.say("[bold green]finished[/bold green]")
    report_at_the_end(run, display.warn)
    for what, path in (("report", run.report_file), ("encoder", run.encoder), ("metrics", run.metrics_file)):
        if path.exists():
            display.say(f"  {what:<9}{escape(str(path))}")
