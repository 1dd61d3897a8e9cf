"""``fedsense analyse``: measure a finished run, show the metrics, keep them, and write the report
anew."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fedsense_core.run_folder.folder import RunFolder, write_json
from fedsense_core.tools.analysis.analyse import analyse_run
from fedsense_core.tools.analysis.analysis_options import AnalysisOptions
from fedsense_core.tools.cli.terminal import Step
from fedsense_core.tools.reporting.flatness_section import Analysis, rows, summary
from fedsense_core.tools.reporting.report import write_report


def analyse(folder: Path, out: Path | None, options: AnalysisOptions, progress: Step) -> Analysis:
    """Measure the run and write ``analysis.json`` and the report; with ``out`` that file alone.

    Raises as `analyse_run`.
    """
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring, not after
    analysis = analyse_run(folder, options, progress)
    run = RunFolder.open(folder)
    write_json(out or run.analysis_file, analysis)
    if out is None:
        write_report(run)
    return analysis


def show(analysis: Analysis, console: Console) -> None:
    """Print the metrics with what they mean."""
    table = Table(Column("measure", no_wrap=True), Column("value", justify="right", no_wrap=True), "meaning", box=None)
    for row in rows(analysis):
        table.add_row(row.what, row.value, escape(row.meaning))
    console.print(table)
    console.print(escape(summary(analysis)))
