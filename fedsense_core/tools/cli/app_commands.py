"""``fedsense app``: the bundle that institutions agreed to, from building it to trusting it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedsense_core.tools.cli.terminal import clear_errors, console, warn

app_app = typer.Typer(
    name="app",
    help="Build the app bundle, sign it, and check what others signed.",
    no_args_is_help=True,
)

BundleFile = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle (.fab) that `fedsense app build` wrote.")]
TrustedFile = Annotated[Path, typer.Argument(metavar="TRUSTED", help="trusted.yaml of a SuperNode.")]
SignerName = Annotated[str, typer.Argument(metavar="NAME", help="Name that the signer signs under.")]
SignaturesFile = Annotated[
    Path | None, typer.Option(help="File of signatures. Default: BUNDLE with .signatures.json in place of .fab.")
]


@app_app.command()
def build(
    app: Annotated[Path | None, typer.Option(help="Folder of a clone. Default: the installed FedSense.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A changed copy of flower.toml to travel in place of the shipped one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the bundle.")] = Path(),
) -> None:
    """Build the bundle (FAB) that runs at the coordinator and at every institution.

    The same release makes the same bytes, so the same digest, on every machine. The last line is
    the digest; the file is named above it.
    """
    with clear_errors():
        from fedsense_core.tools.app_bundle.building import build as build_bundle
        from fedsense_core.tools.app_bundle.building import write_bundle

        built = build_bundle(_expanded(app), _expanded(config))
        path = write_bundle(built.bundle, out.expanduser())
    for name in built.left_out:
        warn(f"left out: {name} is a link or not under version control (`git add` it if it belongs to the app)")
    console.print(escape(str(path)))
    console.print(f"{len(built.bundle.files)} files, {len(built.bundle.content):,} bytes; code {built.bundle.code}")
    console.print(f"sha256 {built.bundle.digest}")


@app_app.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Private key to write; FILE.pub is the public one.")],
) -> None:
    """Make a key to sign with, as `ssh-keygen -t ed25519 -N "" -f FILE` does.

    Keep FILE on a machine that serves nothing. FILE.pub is for institutions.
    """
    with clear_errors():
        from fedsense_core.tools.app_bundle.signer_keys import make_key

        console.print(escape(make_key(file.expanduser())))


@app_app.command()
def sign(
    bundle: BundleFile,
    key: Annotated[Path, typer.Option(help="OpenSSH private key (Ed25519) of the signer.")],
    name: Annotated[str, typer.Option(help="Name of the signer, under which institutions have the public key.")],
    signatures: SignaturesFile = None,
) -> None:
    """Sign a bundle, without network; the signature goes into a small file beside it.

    Several may sign the same bundle, one after the other: for a SuperNode one signer it trusts is
    enough.
    """
    with clear_errors():
        from fedsense_core.tools.app_bundle.bundle import Bundle
        from fedsense_core.tools.app_bundle.signatures import add_signature, file_beside
        from fedsense_core.tools.app_bundle.signatures import sign as signature_of
        from fedsense_core.tools.app_bundle.signer_keys import read_private_key

        read = Bundle.read(bundle.expanduser())
        path = _expanded(signatures) or file_beside(bundle.expanduser())
        together = add_signature(read, path, name, signature_of(read, read_private_key(key.expanduser())))
    console.print(f"{escape(str(path))}: signed by {', '.join(sorted(together.signatures))}")
    console.print(f"sha256 {read.digest}")


@app_app.command()
def verify(
    bundle: BundleFile,
    trusted: Annotated[Path, typer.Option(help="trusted.yaml: the signers that you trust, and their keys.")],
    signatures: SignaturesFile = None,
) -> None:
    """Check a bundle as a SuperNode does before it runs it, and say whether it is the code
    installed here.

    Exit status: 0 a signer you trust signed these bytes, 2 nobody did.
    """
    with clear_errors():
        from fedsense_core.fingerprint import source_digest
        from fedsense_core.tools.app_bundle.bundle import Bundle
        from fedsense_core.tools.app_bundle.signatures import file_beside, read_signatures
        from fedsense_core.tools.app_bundle.signatures import verify as trusted_signatures
        from fedsense_core.tools.app_bundle.trusted_signers import read_trusted

        signers = read_trusted(trusted.expanduser())
        read = Bundle.read(bundle.expanduser())
        path = _expanded(signatures) or file_beside(bundle.expanduser())
        for name, entry in trusted_signatures(read, read_signatures(path), signers, str(path)).items():
            console.print(f"signed by {name} at {datetime.fromtimestamp(entry.signed_at, UTC):%Y-%m-%d %H:%M} UTC")
        same = "the same as" if read.code == source_digest() else "another than"
        console.print(
            f"{escape(read.app_id)} {escape(read.version)}, code {read.code}: {same} the FedSense installed here"
        )
    console.print(f"sha256 {read.digest}")


@app_app.command()
def trust(
    trusted: TrustedFile,
    name: SignerName,
    key: Annotated[Path, typer.Argument(metavar="KEY.pub", help="Public key of the signer.")],
) -> None:
    """Let an institution's SuperNode run what this signer signed; it reads the file when it
    starts."""
    with clear_errors():
        from fedsense_core.tools.app_bundle.signer_keys import read_public_line
        from fedsense_core.tools.app_bundle.trusted_signers import trust as add

        path = trusted.expanduser()
        signers = add(path, name, read_public_line(key.expanduser()))
    console.print(f"{escape(str(path))}: {', '.join(sorted(signers))}")


@app_app.command()
def distrust(trusted: TrustedFile, name: SignerName) -> None:
    """Take a signer out. Restart the SuperNode then: it reads the file when it starts."""
    with clear_errors():
        from fedsense_core.tools.app_bundle.trusted_signers import distrust as take_out

        path = trusted.expanduser()
        signers = take_out(path, name)
    console.print(f"{escape(str(path))}: {', '.join(sorted(signers))}")


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()
