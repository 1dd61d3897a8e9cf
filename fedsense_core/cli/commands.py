"""The commands. Each is a thin shell: options in, work elsewhere, a clear exit status out.

Exit status: 0 done, 1 the run failed, 2 it could not start (wrong setting, site or folder), 130 interrupted.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedsense_core.cli.data import data_app
from fedsense_core.cli.shell import clear_errors, console, errors

app = typer.Typer(
    name="fedsense",
    help="Institutions pre-train one remote-sensing encoder together, without sharing imagery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"fedsense {version('fedsense')}, flwr {version('flwr')}, torch {version('torch')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and stop.")
    ] = False,
) -> None:
    """Institutions pre-train one remote-sensing encoder together, without sharing imagery."""


@app.command()
def run(
    preset: Annotated[
        str, typer.Option("--preset", "-p", help="Method to run; `fedsense presets` lists them.")
    ] = "fedsense",
    sites: Annotated[
        Path | None, typer.Option(help="Folder of site files, one per institution. Default: the shipped sample.")
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="Site file of the coordinator's public imagery. Default: the shipped sample.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Folder of the labelled set for the probes. Default: the shipped sample.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of training.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/PRESET-seedSEED.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting, repeatable; see `fedsense settings`."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A changed copy of flower.toml, for settings that are lists or tables.")
    ] = None,
    supernodes: Annotated[
        int | None, typer.Option(min=1, help="Simulated SuperNodes. Default: one per site file.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPU cores per client. Default: all are used.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Share of a GPU per client. Default: all are used.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show everything Flower says.")] = False,
) -> None:
    """Simulate a federation on this machine, from imagery to encoder and report.

    An unfinished run in the run folder is continued after its last whole round.
    """
    from fedsense_core.cli.running import Display, run_jobs

    given = {
        "run.rounds": rounds,
        "run.seed": seed,
        "federation.sites": sites,
        "federation.public": public,
        "federation.labelled": labelled,
    }
    with clear_errors():
        from fedsense_core.cli.planning import Request, parse_settings, plan

        pairs = [f"{key}={value}" for key, value in given.items() if value is not None]
        request = Request(preset, parse_settings([*pairs, *(settings or [])]), out, supernodes, config)
        jobs = plan(request)
    raise typer.Exit(run_jobs(jobs, request, (cpus, gpus), Display(console, errors, verbose)))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]) -> None:
    """Say where the report of a run is; write it from the metrics where it is missing or older than they are.

    Such a report has no pictures: they need the imagery and come with the run's own end.
    """
    with clear_errors():
        from fedsense_core.reporting import RunFolder
        from fedsense_core.reporting.report import write_report

        run = RunFolder.open(folder.expanduser().absolute())
        metrics = run.metrics_file.stat().st_mtime if run.metrics_file.exists() else 0.0
        if not run.report_file.exists() or run.report_file.stat().st_mtime < metrics:
            write_report(run, None)
        console.print(escape(str(run.report_file)))


@app.command()
def presets() -> None:
    """List the methods and the switches that make them."""
    from fedsense_core.cli.tables import presets_table

    console.print(presets_table())


@app.command()
def settings() -> None:
    """List every setting with its default and its meaning."""
    from fedsense_core.cli.tables import settings_table

    with clear_errors():
        console.print(settings_table())
