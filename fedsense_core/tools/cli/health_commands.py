"""``fedsense status``, ``doctor``, ``audit`` and ``plan``: what people see of a federation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from fedsense_core.tools.cli.terminal import FAILED, clear_errors, console

if TYPE_CHECKING:
    from fedsense_core.tools.health.doctor import RunSettings
    from fedsense_core.tools.health.findings import Finding

COORDINATOR, INSTITUTION = Path("~/.fedsense/coordinator"), Path("~/.fedsense/institution")
WATCH_S = 3.0

status_app = typer.Typer(name="status", help="Say what goes on, at either side.", no_args_is_help=True)
doctor_app = typer.Typer(name="doctor", help="Look at all that a role needs, before a run does.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it anew every few seconds, until Ctrl-C.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the run, as the coordinator gives them."),
]
Run = Annotated[
    Path | None,
    typer.Option("--run", metavar="FOLDER", help="Run folder, or file like its settings.toml: the run's settings."),
]


def mount(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(status_app)
    app.add_typer(doctor_app)
    app.command()(audit)
    app.command()(plan)


@status_app.command("coordinator")
def coordinator_status(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder. Default: the newest.")] = None,
    state: Annotated[Path, typer.Option("--state", help="The coordinator's folder.")] = COORDINATOR,
    rounds_of: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name the rounds in which this institution's updates count.")
    ] = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Say who is connected, how far the run is, and what became of each institution's last update.

    Exit status: 1 where the SuperLink does not answer, or the run stopped.
    """
    from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
    from fedsense_core.tools.health import coordinator_status as looking
    from fedsense_core.tools.health.run_state import share_of

    folder, chosen = CoordinatorFolder(_path(state)), _path(run) if run else None
    with clear_errors():
        if rounds_of is not None:
            found = looking.coordinator_status(folder, chosen)
            if found.run is None:
                console.print("no run yet")
                raise typer.Exit(FAILED)
            share = share_of(found.run.folder, rounds_of)
            page = looking.describe_share(share, found.run)
            _print(vars(share) if as_json else page)
            return
        _show(
            lambda: looking.coordinator_status(folder, chosen),
            lambda found: looking.describe(found),
            watch=watch,
            as_json=as_json,
        )


@status_app.command("institution")
def institution_status(
    state: Annotated[Path, typer.Option("--state", help="The institution's folder.")] = INSTITUTION,
    last: Annotated[int, typer.Option(min=0, help="Entries of the log that are listed.")] = 8,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Say what was asked of this institution, what it sent, and what became of it, from its audit
    log.

    Exit status: 1 where the log does not hold.
    """
    from fedsense_core.tools.health import institution_status as looking

    with clear_errors():
        _show(
            lambda: looking.institution_status(_path(state), last),
            lambda found: looking.describe(_path(state), found),
            watch=watch,
            as_json=as_json,
        )


@doctor_app.command("institution")
def doctor_institution(
    pairs: Settings = None,
    run: Run = None,
    state: Annotated[Path, typer.Option("--state", help="The institution's folder.")] = INSTITUTION,
    dry_step: Annotated[bool, typer.Option("--dry-step/--no-dry-step", help="Train one step on your chips.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check versions, key, certificate, connection, policy, site file and machine, and train one
    step that leaves nothing.

    Give the run's settings, so that bands, chips and model are its own. Exit status: 1 where
    something fails.
    """
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.institution_folder import InstitutionFolder
    from fedsense_core.tools.health.doctor import institution_findings

    with clear_errors():
        given = _run_settings(pairs, run)
        folder = InstitutionFolder(_path(state))
        _tell(institution_findings(folder, given, utc_now(), dry_step=dry_step), as_json)


@doctor_app.command("coordinator")
def doctor_coordinator(
    pairs: Settings = None,
    run: Run = None,
    state: Annotated[Path, typer.Option("--state", help="The coordinator's folder.")] = COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Check versions, certificates, keys, SuperLink, what is open to outside, machine and settings.

    Exit status: 1 where something fails.
    """
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
    from fedsense_core.tools.health.doctor import coordinator_findings

    with clear_errors():
        given = _run_settings(pairs, run)
        _tell(coordinator_findings(CoordinatorFolder(_path(state)), given, utc_now()), as_json)


def audit(
    log: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="audit.jsonl, or the institution's folder it lies in.")
    ] = INSTITUTION,
    holds: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="A last digest noted earlier: is its line still there?")
    ] = None,
    last: Annotated[int, typer.Option(min=0, help="Entries that are listed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Verify an institution's audit log line by line, and name the first bad one.

    Exit status: 1 where it does not hold.
    """
    from fedsense_core.tools.health import institution_status as looking

    with clear_errors(FAILED):
        found = looking.institution_status(_path(log), last)
        if as_json:
            _print({"log": vars(found.verdict), "entries": found.as_dict()["entries"]})
        else:
            if found.entries:
                console.print(looking.entries_table(found.entries), soft_wrap=False)
            console.print(looking.describe_verdict(_path(log), found.verdict), soft_wrap=False)
        if found.verdict.problem:
            raise typer.Exit(FAILED)
        if holds is not None:
            number = looking.holds(_path(log), holds)
            if not as_json:
                console.print(f"line {number} has the digest {holds}: nothing up to it was changed")


def plan(
    pairs: Settings = None,
    run: Run = None,
    institutions: Annotated[int, typer.Option("--institutions", "-n", min=1, help="How many take part.")] = 5,
    link: Annotated[float, typer.Option(min=0.001, help="Rate of an institution's link, Mbit/s.")] = 20.0,
    coordinator_link: Annotated[
        float | None, typer.Option(min=0.001, help="Rate of the coordinator's, Mbit/s. Default: the same.")
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="Site file of the trial's client. Default: one of the shipped sample.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="State folder of that institution: chips are taken from it, and kept there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """State what a run will take of each role: hours, bytes, memory, disk.

    Modelled from two rounds of two steps on this machine, with the run's own model and codecs.
    Bytes are exact where all take part in every round. Run it where the run will be.
    """
    from fedsense_core.tools.health import planning
    from fedsense_core.tools.health.trial import plan_run

    with clear_errors():
        given = _run_settings(pairs, run)
        situation = planning.Situation(institutions, link, coordinator_link or link)
        config, trial = plan_run(
            given.settings, given.flower_toml, _path(site) if site else None, _path(state) if state else None
        )
        found = planning.plan_of(config, trial, situation)
    _print(found.as_dict() if as_json else planning.describe(found, situation))


def _run_settings(pairs: Sequence[str] | None, run: Path | None) -> RunSettings:
    """Return the settings of the run that is to come: those of a run folder, and texts on top."""
    from fedsense_core.tools.health.run_settings import run_settings

    return run_settings(pairs or (), _path(run) if run else None)


def _tell(findings: Iterator[Finding], as_json: bool) -> None:
    from fedsense_core.tools.health.findings import describe, has_failed

    all_of_them = list(findings)
    _print([vars(finding) for finding in all_of_them] if as_json else describe(all_of_them))
    if has_failed(all_of_them):
        raise typer.Exit(FAILED)


def _show(look: Callable[[], Any], page: Callable[[Any], RenderableType], *, watch: bool, as_json: bool) -> None:
    """Print what is seen, once or until Ctrl-C, and end with status 1 where it is not well."""
    found = look()
    if watch and not as_json:
        try:
            with Live(page(found), console=Console(highlight=False), auto_refresh=False, screen=False) as live:
                while True:
                    time.sleep(WATCH_S)
                    live.update(page(look()), refresh=True)
        except KeyboardInterrupt:
            return
    _print(found.as_dict() if as_json else page(found))
    if not found.is_well:
        raise typer.Exit(FAILED)


def _print(page: Any) -> None:
    if isinstance(page, dict | list):
        typer.echo(json.dumps(page, indent=2, default=str))
    else:
        console.print(page, soft_wrap=False)


def _path(path: Path) -> Path:
    return path.expanduser().absolute()
