"""``fedsense coordinator``: one command per step, from the certificates to the end of a run."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from fedsense_core.tools.cli.terminal import FAILED, clear_errors, console, warn

if TYPE_CHECKING:
    from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
    from fedsense_core.tools.deployment.running import Ear

coordinator_app = typer.Typer(
    name="coordinator",
    help="Run the coordinator of a federation over a network.",
    no_args_is_help=True,
)

State = Annotated[Path, typer.Option("--state", help="The coordinator's folder.")]
HOME = Path("~/.fedsense/coordinator")
CaKey = Annotated[
    Path | None,
    typer.Option("--ca-key", metavar="FILE", help="Where the authority's key is kept, encrypted; outside the folder."),
]


def _folder(state: Path) -> CoordinatorFolder:
    from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder

    return CoordinatorFolder(state.expanduser().absolute())


def _checked(state: Path) -> CoordinatorFolder:
    """Return the folder, and warn where a certificate runs out; raise DeploymentError where one
    has."""
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.setting_up import check_coordinator

    folder = _folder(state)
    for warning in check_coordinator(folder, utc_now()):
        warn(warning)
    return folder


def _ear() -> Ear:
    from fedsense_core.tools.deployment.running import Ear

    return Ear(show=_say, say=_say, warn=warn)


def _say(line: str) -> None:
    console.print(escape(line))


def _passphrase(twice: bool = False) -> str:
    """Ask for the passphrase of the authority's key; where there is no terminal, read a line."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    passphrase = getpass("passphrase of the authority's key: ")
    if twice and getpass("once more: ") != passphrase:
        from fedsense_core.tools.deployment.documents import DeploymentError

        raise DeploymentError("the two passphrases differ")
    return passphrase


@coordinator_app.command()
def init(
    address: Annotated[
        str, typer.Option(metavar="HOST[:PORT]", help="Under which institutions reach you. Default port: 8443.")
    ],
    name: Annotated[str, typer.Option(help="Name of the federation.")] = "fedsense",
    also: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Another name or IP address of yours, repeatable.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the SuperLink on 127.0.0.1.")] = None,
    signer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE.pub", help="Who may sign the app, by an Ed25519 key. Repeatable."),
    ] = None,
    ca_key: CaKey = None,
    state: State = HOME,
) -> None:
    """Make certificates, secret and settings.

    The authority's key is used in memory and discarded: renewing the certificate then means a new
    authority, and new invitations for all. --ca-key keeps it, encrypted, where you say.
    """
    from fedsense_core.tools.deployment import setting_up
    from fedsense_core.tools.deployment.certificates import fingerprint, utc_now

    with clear_errors():
        folder = _folder(state)
        where = setting_up.read_address(address)
        settings = setting_up.settings_for(where, name, also or [], port, setting_up.read_signers(signer or []))
        key_file = setting_up.check_key_file(ca_key, folder, new=True) if ca_key else None
        passphrase = _passphrase(twice=True) if key_file else ""
        if key_file:
            setting_up.check_passphrase(passphrase)
        authority = setting_up.init(folder, settings, utc_now())
        if key_file:
            setting_up.seal(authority, key_file, passphrase)
    console.print(f"made: {escape(str(folder.path))}")
    kept = (
        f"encrypted in {key_file}"
        if key_file
        else "discarded; `fedsense coordinator renew --help` says what that means"
    )
    console.print(f"key of the authority: {escape(kept)}")
    console.print(f"fingerprint of its certificate (SHA-256): {fingerprint(authority.certificate)}")


@coordinator_app.command()
def renew(
    ca_key: CaKey = None,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority", help="Without the old key: a new authority, and a new invitation for every institution."
        ),
    ] = False,
    state: State = HOME,
) -> None:
    """Make a new certificate for the server; it is shown from the next start of `serve` on."""
    from fedsense_core.tools.deployment import setting_up
    from fedsense_core.tools.deployment.certificates import fingerprint, make_authority, utc_now
    from fedsense_core.tools.deployment.documents import DeploymentError

    with clear_errors():
        folder = _folder(state)
        settings = folder.read()
        key_file = setting_up.check_key_file(ca_key, folder, new=new_authority) if ca_key else None
        if new_authority:
            passphrase = _passphrase(twice=True) if key_file else ""
            authority = make_authority(f"FedSense federation {settings.name}", utc_now())
            if key_file:
                setting_up.seal(authority, key_file, passphrase)
        elif key_file:
            authority = setting_up.unseal(folder, key_file, _passphrase())
        else:
            raise DeploymentError(
                "the key of the authority is needed: --ca-key FILE, or, where it was discarded, --new-authority"
            )
        setting_up.renew(folder, authority, utc_now())
    console.print("renewed: start `fedsense coordinator serve` again")
    if new_authority:
        console.print("give every institution a new invitation (`fedsense coordinator invitation`)")
        console.print(f"fingerprint of the new authority (SHA-256): {fingerprint(authority.certificate)}")


@coordinator_app.command()
def invitation(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("federation.toml"),
    state: State = HOME,
) -> None:
    """Write what institutions need to join: address, certificate, signers and digest of the app."""
    from fedsense_core.atomic_io import write_whole
    from fedsense_core.tools.deployment import setting_up
    from fedsense_core.tools.deployment.certificates import fingerprint

    with clear_errors():
        made = setting_up.invitation(_folder(state))
        write_whole(out.expanduser().absolute(), made.to_toml())
    console.print(f"give this file to every institution: {escape(str(out))}")
    console.print(f"tell them by another channel (SHA-256): {fingerprint(made.authority)}")


@coordinator_app.command()
def serve(
    only: Annotated[
        str | None, typer.Option(help="superlink, superexec or proxy: this one alone, for a unit of its own.")
    ] = None,
    state: State = HOME,
) -> None:
    """Keep the federation's server running: SuperLink, SuperExec and, where configured, the proxy.

    Ctrl-C or SIGTERM ends them in order.
    """
    from fedsense_core.tools.deployment import setting_up
    from fedsense_core.tools.deployment.certificates import utc_now
    from fedsense_core.tools.deployment.keeping import keep_running
    from fedsense_core.tools.deployment.parts import coordinator_parts

    with clear_errors():
        folder = _folder(state)
        for warning in setting_up.check_coordinator(folder, utc_now()):
            warn(warning)
        parts = coordinator_parts(folder, only)
    with clear_errors(FAILED):
        status = keep_running(parts, _say)
    raise typer.Exit(status)


@coordinator_app.command()
def admit(
    name: Annotated[str, typer.Argument(help="Name of the institution, that of its site file.")],
    key: Annotated[Path, typer.Argument(metavar="KEY.pub", help="The public key that it sent.")],
    state: State = HOME,
) -> None:
    """Let an institution take part, under this name and no other."""
    from fedsense_core.tools.deployment.control import connect
    from fedsense_core.tools.deployment.membership import check_name
    from fedsense_core.tools.deployment.node_keys import fingerprint_of, read_public_key

    with clear_errors():
        public = read_public_key(key.expanduser())
        with connect(_folder(state)) as control:
            control.admit(check_name(name), public)
    console.print(f"admitted: {escape(name)}, key {fingerprint_of(public)}")


@coordinator_app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of the institution.")], state: State = HOME) -> None:
    """Take an institution out: its key is refused from now on."""
    from fedsense_core.tools.deployment.control import connect

    with clear_errors(), connect(_folder(state)) as control:
        member = control.remove(name)
    console.print(f"removed: {escape(member.name)}, key {member.key}")


@coordinator_app.command()
def members(state: State = HOME) -> None:
    """List the institutions that were admitted, and whether they are connected."""
    from fedsense_core.tools.deployment.control import connect

    with clear_errors(), connect(_folder(state)) as control:
        found = control.members()
    wide = max((len(member.name) for member in found), default=0)
    for member in found:
        _say(f"{member.name:{wide}}  {member.status:10}  {member.since[:19]:19}  {member.key}")
    if not found:
        _say("no institution was admitted yet: `fedsense coordinator admit NAME KEY.pub`")


@coordinator_app.command()
def run(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Any setting; see `fedsense settings`.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A changed copy of flower.toml, for settings that are lists or tables.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start it again where it fails.")] = False,
    state: State = HOME,
) -> None:
    """Start a training run, follow it, and report it.

    Exit status: 0 complete, 1 failed, 2 could not start, 3 stopped, 130 interrupted (the run goes
    on).
    """
    from fedsense_core.tools.deployment import running
    from fedsense_core.tools.deployment.training import plan

    with clear_errors():
        folder = _checked(state)
        training = plan(settings or [], config.expanduser().absolute() if config else None, folder)
        status = running.run(folder, training, _ear(), restart)
    raise typer.Exit(status)


@coordinator_app.command()
def resume(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN_FOLDER]", help="Folder of the run. Default: the newest run's.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start it again where it fails.")] = False,
    state: State = HOME,
) -> None:
    """Continue a run after its last whole round, with its own settings, or follow it where it is
    under way.

    Exit status as of `fedsense coordinator run`; 0 too where the run was complete already.
    """
    from fedsense_core.tools.deployment import running

    with clear_errors():
        status = running.resume(_checked(state), run_folder, _ear(), restart)
    raise typer.Exit(status)


@coordinator_app.command()
def stop(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN_FOLDER]", help="Folder of the run. Default: all runs.")
    ] = None,
    state: State = HOME,
) -> None:
    """Stop a run; `fedsense coordinator resume` continues it."""
    from fedsense_core.tools.deployment import running

    with clear_errors():
        stopped = running.stop(_folder(state), run_folder)
    for one in stopped:
        console.print(f"stopped: {escape(one.folder)}")
    if not stopped:
        console.print("no run is under way")
