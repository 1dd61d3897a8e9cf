"""``fedsense analyse``: measure a finished run, keep what was measured, and show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fedsense_core.run_folder.folder import RunFolder, write_json
from fedsense_core.tools.analysis.analyse import analyse_run
from fedsense_core.tools.analysis.analysis_options import AnalysisOptions
from fedsense_core.tools.cli.terminal import Step
from fedsense_core.tools.extras import MissingExtra, require
from fedsense_core.tools.reporting.flatness_section import Analysis, rows, summary


def analyse(folder: Path, out: Path | None, options: AnalysisOptions, progress: Step) -> Analysis:
    """Measure the run and write ``analysis.json``; with ``out`` that file instead. Raises as
    `analyse_run`."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring, not after
    analysis = analyse_run(folder, options, progress)
    run = RunFolder.open(folder)
    write_json(out or run.analysis_file, analysis)
    return analysis


def report(folder: Path, say: Callable[[str], None]) -> None:
    """Write the report of an analysed run anew. It keeps its pictures: the models are the same."""
    try:
        require("report", work="the report")
    except MissingExtra as error:
        say(str(error))
        return
    from fedsense_core.tools.reporting.report import write_report

    write_report(RunFolder.open(folder))


def show(analysis: Analysis, console: Console) -> None:
    """Print every measure with what it means."""
    table = Table(Column("measure", no_wrap=True), Column("value", justify="right", no_wrap=True), "meaning", box=None)
    for row in rows(analysis):
        table.add_row(row.what, row.value, escape(row.meaning))
    console.print(table)
    console.print(escape(summary(analysis)))
