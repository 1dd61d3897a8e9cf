"""The report of a run, from nothing but its folder and the imagery that its settings name.

The server trains and exports, and knows no reports: whoever started a run calls this once it has
ended."""

from __future__ import annotations

from collections.abc import Callable

from fedsense_core.errors import FedSenseError
from fedsense_core.full_disk import naming_full_disk
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.extras import require
from fedsense_core.tools.run_settings import settings_of


def is_current(run: RunFolder) -> bool:
    """Return whether the report of ``run`` shows all that is known of it; pictures come last."""
    sources = [run.metrics_file, run.analysis_file, *([run.finished_file] if run.is_finished else [])]
    changed = max((path.stat().st_mtime for path in sources if path.exists()), default=0.0)
    has_pictures = run.pictures_file.exists() or not run.is_finished
    return run.report_file.exists() and run.report_file.stat().st_mtime >= changed and has_pictures


def report_run(run: RunFolder, say: Callable[[str], None]) -> None:
    """Write the report of ``run`` as far as it has come; a finished one gets its pictures too.

    Pictures need the imagery: where it is not at hand, ``say`` hears why, and those that were drawn
    before stay. Raises MissingExtra without matplotlib or jinja2.
    """
    require("report", work="a report")
    from fedsense_core.tools.reporting.report import write_report
    from fedsense_core.tools.reporting.run_pictures import draw

    pictures = None
    if run.is_finished:
        try:
            pictures = draw(settings_of(run), run)
        except FedSenseError as error:
            say(f"the report gets no new pictures: {error}")
    write_report(run, pictures)


def report_at_the_end(run: RunFolder, say: Callable[[str], None]) -> None:
    """Write the report of a run that has just finished, where its settings ask for one.

    A report that cannot be written does not make a run fail that is complete: ``say`` hears why.
    """
    if not run.read_config().get("run", {}).get("report", True):
        return
    try:
        with naming_full_disk(run.path, "--out"):
            report_run(run, say)
    except FedSenseError as error:
        say(f"no report: {error} (`fedsense report {run.path}` writes it later)")
