"""The commands. Each is thin: options in, work elsewhere, a clear exit status out.

Exit status: 0 done, 1 the run failed, 2 it could not start (wrong setting, site or folder), 130
interrupted.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedsense_core.tools.cli.app_commands import app_app
from fedsense_core.tools.cli.coordinator_commands import coordinator_app
from fedsense_core.tools.cli.data_commands import data_app
from fedsense_core.tools.cli.evaluate_command import evaluate
from fedsense_core.tools.cli.health_commands import mount as mount_health
from fedsense_core.tools.cli.institution_commands import institution_app
from fedsense_core.tools.cli.terminal import clear_errors, console, errors, progress_bar, warn
from fedsense_core.tools.extras import require

app = typer.Typer(
    name="fedsense",
    help="Institutions pre-train one remote-sensing encoder together, without sharing imagery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
app.add_typer(app_app)
app.add_typer(coordinator_app)
app.add_typer(institution_app)
mount_health(app)
app.command()(evaluate)


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
        str | None,  # not a Path, of which an empty one is the working directory
        typer.Option(
            metavar="PATH", help='Folder of the labelled set for the probes; "" for none. Default: the sample.'
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of training; with --continue, how many further ones.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder. Default: runs/PRESET-seedSEED; with --continue, RUN-to-ROUNDS."),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="RUN",
            help="Folder of a finished run to go on from for --rounds further rounds, with its settings, in a new "
            "folder. The learning rate begins a new schedule; all else goes on.",
        ),
    ] = None,
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
    engine: Annotated[
        str,
        typer.Option(
            help="simulation: Flower's own, with Ray and a SuperLink. in-process: all in one process, which starts at "
            "once; for experiments, CI and notebooks, and no test of the network."
        ),
    ] = "simulation",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the in-process engine. Default: all cores.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show everything Flower says.")] = False,
) -> None:
    """Simulate a federation on this machine, from imagery to encoder and report.

    An unfinished run in the run folder is continued after its last whole round. A finished one is
    trained longer by --continue.
    """
    from fedsense_core.tools.runner.running import Display, run_jobs

    given = {
        "run.rounds": rounds,
        "run.seed": seed,
        "federation.sites": sites,
        "federation.public": public,
        "federation.labelled": labelled,
    }
    with ExitStack() as opened:
        with clear_errors():
            from fedsense_core.tools.runner.continuation import going_on
            from fedsense_core.tools.runner.planning import Request, parse_settings, plan

            pairs = [f"{key}={value}" for key, value in given.items() if value is not None]
            chosen = parse_settings([*pairs, *(settings or [])])
            request = Request(preset, chosen, out, supernodes, config, engine, threads)
            if continue_from is not None:
                request = opened.enter_context(going_on(continue_from, request))
            jobs = plan(request)
            if engine == "simulation":
                require("simulation", work="a simulation with Flower's own engine (others: --engine)")
        raise typer.Exit(run_jobs(jobs, request, (cpus, gpus), Display(console, errors, verbose)))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]) -> None:
    """Say where the report of a run is; write it where it is missing or older than what it shows.

    A finished run gets pictures too, if its imagery is at hand.
    """
    with clear_errors():
        from fedsense_core.run_folder import RunFolder
        from fedsense_core.tools.reporting.run_report import is_current, report_run

        run = RunFolder.open(folder.expanduser().absolute())
        if not is_current(run):
            report_run(run, warn)
        console.print(escape(str(run.report_file)))


@app.command()
def analyse(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    batches: Annotated[int, typer.Option(min=1, help="Batches of each client.")] = 1,
    ascents: Annotated[int, typer.Option(min=1, help="Ascent steps of the SAM sharpness.")] = 1,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Radius of the SAM sharpness, relative to ‖w‖, repeatable. Default: 0.001, 0.003, 0.01."),
    ] = None,
    absolute: Annotated[bool, typer.Option("--absolute", help="The radii are distances, not relative.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: CUDA where there is one.")] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write in place of RUN/analysis.json; no report then.")
    ] = None,
) -> None:
    """Measure how flat the global model is, and how far from it and from one another the clients'
    are.

    Hessian, sharpness, loss barriers and likeness of encoders, in analysis.json and in the report.
    """
    with clear_errors():
        from fedsense_core.tools.analysis.analysis_options import AnalysisOptions
        from fedsense_core.tools.cli import analyse_command as analysing

        radii = tuple(sorted(radius or AnalysisOptions.radii))
        options = AnalysisOptions(batches, radii, absolute, ascents, device=device)
        with progress_bar("measuring", "passes") as progress:
            analysis = analysing.analyse(folder.expanduser().absolute(), out, options, progress)
        analysing.show(analysis, console)
        if out is None:
            analysing.report(folder.expanduser().absolute(), warn)


@app.command()
def benchmark(
    matrix: Annotated[Path, typer.Argument(metavar="MATRIX.toml", help="Methods, compressions, seeds and tasks.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for trials, tables and plots.")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time. Default: what the file says.")] = None,
    limit_minutes: Annotated[float, typer.Option(min=0, help="When to stop; the same command goes on.")] = 150.0,
    only: Annotated[str, typer.Option(help="Glob of trials, such as 'fedavg@*' or '*/seed0'.")] = "*",
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="What {NAME} stands for in paths of the file, repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and what is to be done.")] = False,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Make tables and plots anew, run nothing.")
    ] = False,
) -> None:
    """Run every trial of a matrix that is not done, and compare the methods: tables, plots,
    intervals.

    Exit status: 0 all done, 1 some trials failed, 3 time is up and trials are left.
    """
    with clear_errors():
        require("evaluate", "report", work="a benchmark")
        from fedsense_core.tools.cli import benchmark_command as benchmarking

        choices = benchmarking.Choices(jobs, limit_minutes, only, benchmarking.parse_data(data or []))
        opened = benchmarking.Benchmark.open(matrix, out, choices)
        if dry_run:
            benchmarking.show_plan(opened, console)
        elif tables_only:
            benchmarking.write_tables(opened, console)
        else:
            raise typer.Exit(benchmarking.run_benchmark(opened, console))


@app.command()
def presets() -> None:
    """List the methods and the switches that make them."""
    from fedsense_core.tools.cli.listings import presets_table

    console.print(presets_table())


@app.command()
def settings() -> None:
    """List every setting with its default and its meaning."""
    from fedsense_core.tools.cli.listings import settings_table

    with clear_errors():
        console.print(settings_table())
