"""``fedsense institution``: one command per step, from the invitation to taking part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from fedsense_core.tools.cli.terminal import FAILED, clear_errors, console, progress_bar, warn

if TYPE_CHECKING:
    from fedsense_core.tools.deployment.institution_folder import InstitutionFolder

institution_app = typer.Typer(
    name="institution",
    help="Take part in a federation over a network, with imagery that stays on your machine.",
    no_args_is_help=True,
)

State = Annotated[Path, typer.Option("--state", help="The institution's folder.")]
HOME = Path("~/.fedsense/institution")
PORT = 9094


def _folder(state: Path) -> InstitutionFolder:
    from fedsense_core.tools.deployment.institution_folder import InstitutionFolder

    return InstitutionFolder(state.expanduser().absolute())


@institution_app.command()
def join(
    invitation: Annotated[Path, typer.Argument(metavar="federation.toml", help="The coordinator's invitation.")],
    site: Annotated[Path | None, typer.Option(help="Your site file. Default: site.toml in the folder.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1 for Flower's own processes.")] = PORT,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take an invitation that differs from the accepted one.")
    ] = False,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make a new key pair; the coordinator has to admit it anew.")
    ] = False,
    state: State = HOME,
) -> None:
    """Accept an invitation: make the key pair, and say what to send to the coordinator."""
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.joining import Choices
    from fedsense_core.tools.deployment.joining import join as join_federation

    with clear_errors():
        folder = _folder(state)
        chosen = site.expanduser().absolute() if site else folder.own_site_file
        joined = join_federation(folder, invitation.expanduser(), Choices(chosen, port, replace, new_key), utc_now())
    console.print(f"compare with the coordinator, by another channel (SHA-256): {joined.certificate}")
    console.print(f"send this file to the coordinator: {escape(str(joined.public_key))}")
    console.print(
        f"it holds the key {joined.key}, to be admitted under the name of your site file: {escape(joined.name)}"
    )
    if joined.unsigned:
        warn("nobody is known who signs the app: whatever the coordinator sends would run here (`fedsense app trust`)")


@institution_app.command()
def check(
    bands: Annotated[
        str | None,
        typer.Option(help="Bands of the run, such as red,green,blue, or all. Default: the shipped settings'."),
    ] = None,
    chip_size: Annotated[
        int | None, typer.Option(help="Side of chips in the run, pixels. Default: the shipped settings'.")
    ] = None,
    state: State = HOME,
) -> None:
    """Read certificates, keys, site file and imagery as taking part will, and cut the chips.

    What `fedsense data check` shows of the imagery, with the chips kept for training.
    """
    from fedsense_core.full_disk import naming_full_disk
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.joining import check_institution
    from fedsense_core.tools.onboarding.checking import check_site

    with clear_errors():
        folder = _folder(state)
        for warning in check_institution(folder, utc_now()):
            warn(warning)
        site = Path(folder.read().site)
        with naming_full_disk(folder.path, "--state"), progress_bar("chipping", "scenes") as progress:
            page = check_site(site, bands, chip_size, folder.path, progress)
    console.print(page.body, soft_wrap=False)
    console.print(page.verdict)


@institution_app.command()
def serve(
    only: Annotated[
        str | None, typer.Option(help="For a unit of its own: supernode (with watch), superexec, or watch.")
    ] = None,
    state: State = HOME,
) -> None:
    """Take part: keep the SuperNode connected, its SuperExec ready, and end what runs that are over
    left working.

    Ctrl-C or SIGTERM ends them in order.
    """
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.joining import check_institution
    from fedsense_core.tools.deployment.keeping import keep_running
    from fedsense_core.tools.deployment.parts import institution_parts

    with clear_errors():
        folder = _folder(state)
        for warning in check_institution(folder, utc_now(), only):
            warn(warning)
        parts = institution_parts(folder, only)
    with clear_errors(FAILED):
        status = keep_running(parts, _say)
    raise typer.Exit(status)


@institution_app.command()
def policy() -> None:
    """Print a policy file with every limit and its default: what a run may do on this machine.

    Save it as policy.toml in the state folder, and change what you like.
    """
    from fedsense_core.policy import default_file

    typer.echo(default_file(), nl=False)


@institution_app.command()
def leave(
    everything: Annotated[
        bool, typer.Option("--everything", help="Your own files and the audit log in the folder, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state: State = HOME,
) -> None:
    """Delete what FedSense keeps of this institution: key, chips, state between rounds.

    Site file, policy and audit log stay. Imagery is never touched.
    """
    from fedsense_core.run_folder.formatting import human_bytes
    from fedsense_core.tools.health import leaving

    with clear_errors():
        folder = _folder(state).path
        planned = leaving.what_leaving_deletes(folder, everything=everything)
        console.print(f"{escape(str(folder))}: {human_bytes(planned.bytes)} are deleted")
        for path in planned.deleted:
            console.print(f"  {escape(path.name)}")
        if not yes:
            typer.confirm("delete them?", abort=True)
        leaving.leave(folder, everything=everything)
    console.print("left. The coordinator takes the key out by `fedsense coordinator remove NAME`")


def _say(line: str) -> None:
    console.print(escape(line))
