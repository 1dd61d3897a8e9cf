"""What a coordinator does once: certificates, secret, settings; and again when a certificate runs
out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from fedsense_core.tools.app_bundle.signed_bundle import read_agreed
from fedsense_core.tools.deployment.addresses import Address, parse_address
from fedsense_core.tools.deployment.certificate_checks import (
    check_server,
    expiry_warning,
    open_authority,
    read_certificate,
)
from fedsense_core.tools.deployment.certificates import (
    Authority,
    key_pem,
    make_authority,
    make_server_certificate,
    pem_of,
)
from fedsense_core.tools.deployment.coordinator_folder import (
    INIT,
    LOOPBACK,
    CoordinatorFolder,
    CoordinatorSettings,
    ProxySection,
)
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.invitation import Invitation
from fedsense_core.tools.deployment.private_files import private_folder, read_private, write_private, write_secret

EVERYWHERE = "0.0.0.0"
"""Where the proxy listens: it passes on nothing but what institutions need."""
SHORTEST_PASSPHRASE = 12
RENEW = "`fedsense coordinator renew` makes a new one."
RENEW_AUTHORITY = (
    "`fedsense coordinator renew --new-authority` makes a new one, and every institution needs a new invitation."
)


def init(folder: CoordinatorFolder, settings: CoordinatorSettings, now: datetime) -> Authority:
    """Make a coordinator's folder. Returns the authority, whose key is nowhere else.

    Raises DeploymentError where there is one already.
    """
    if folder.settings_file.exists() or folder.certificates.exists():
        raise DeploymentError(
            f"{folder.path} is a coordinator's folder already: institutions trust its certificate. Choose another "
            "--state, or `fedsense coordinator renew`"
        )
    private_folder(folder.path)
    private_folder(folder.certificates)
    authority = make_authority(f"FedSense federation {settings.name}", now)
    write_private(folder.authority_file, pem_of(authority.certificate))
    write_server(folder, authority, settings.names, now)
    write_secret(folder.secret_file)
    folder.write(settings)
    return authority


def settings_for(
    address: Address, name: str, others: Sequence[str], port: int | None, signers: dict[str, str]
) -> CoordinatorSettings:
    """Return the settings of a coordinator at ``address``, with the SuperLink on loopback.

    Where other machines reach the address, a proxy listens there and the SuperLink behind it, on
    the next port unless ``port`` says so.
    """
    local = address.is_loopback
    inner = port or (address.port if local else address.port % 65535 + 1)
    if not local and inner == address.port:
        raise DeploymentError(f"--port {inner} is the port of --address: the SuperLink needs another one")
    return CoordinatorSettings(
        name=name,
        address=str(address),
        port=inner,
        names=list(dict.fromkeys([address.host, *others, "localhost", LOOPBACK])),
        signers=signers,
        proxy=None if local else ProxySection(listen=f"{EVERYWHERE}:{address.port}"),
    )


def renew(folder: CoordinatorFolder, authority: Authority, now: datetime) -> None:
    """Make a new key and certificate for the server, of the same authority or of a new one."""
    settings = folder.read()
    names = list(dict.fromkeys([settings.public.host, *settings.names, LOOPBACK]))
    write_private(folder.authority_file, pem_of(authority.certificate))
    write_server(folder, authority, names, now)


def write_server(folder: CoordinatorFolder, authority: Authority, names: list[str], now: datetime) -> None:
    """Write a new key and certificate of the server."""
    made = make_server_certificate(authority, names, now)
    write_private(folder.server_key, made.key)
    write_private(folder.server_certificate, made.certificate)


def check_key_file(path: Path, folder: CoordinatorFolder, *, new: bool) -> Path:
    """Return where the authority's key is to be, which is not in the folder. Raises
    DeploymentError."""
    path = path.expanduser().absolute()
    if path.resolve().is_relative_to(folder.path.resolve()):
        raise DeploymentError(
            f"--ca-key {path} is in {folder.path}, where a stranger would look for it: choose a place outside, best on "
            "a medium that you unplug"
        )
    if new and path.exists():
        raise DeploymentError(f"--ca-key {path} exists and is not overwritten: choose another file")
    return path


def seal(authority: Authority, path: Path, passphrase: str) -> None:
    """Write the authority's key, encrypted. Raises DeploymentError for a short passphrase."""
    check_passphrase(passphrase)
    encryption = serialization.BestAvailableEncryption(passphrase.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, key_pem(authority.key, encryption))


def check_passphrase(passphrase: str) -> None:
    """Raise DeploymentError for one that is guessed too easily."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise DeploymentError(f"the passphrase has {len(passphrase)} characters: use at least {SHORTEST_PASSPHRASE}")


def unseal(folder: CoordinatorFolder, path: Path, passphrase: str) -> Authority:
    """Return the authority, from its encrypted key and the certificate in the folder. Raises
    DeploymentError."""
    return open_authority(path, passphrase.encode(), read_certificate(folder.authority_file, INIT))


def check_coordinator(folder: CoordinatorFolder, now: datetime) -> list[str]:
    """Return warnings about certificates that run out soon.

    Raises DeploymentError where settings, certificates, keys or secret are missing, wrong or
    expired.
    """
    settings = folder.read()
    read_private(folder.secret_file, "restore it from a backup, or make the folder anew")
    authority = read_certificate(folder.authority_file, INIT)
    names = [settings.public.host, LOOPBACK]
    server = check_server(folder.server_certificate, folder.server_key, authority, names, RENEW)
    found = [
        expiry_warning(authority, str(folder.authority_file), RENEW_AUTHORITY, now),
        expiry_warning(server, str(folder.server_certificate), RENEW, now),
    ]
    return [warning for warning in found if warning]


def invitation(folder: CoordinatorFolder) -> Invitation:
    """Return what institutions get. Raises DeploymentError."""
    settings = folder.read()
    authority = read_certificate(folder.authority_file, INIT)
    return Invitation(
        name=settings.name,
        address=settings.address,
        certificate=pem_of(authority).decode(),
        app_digest=app_digest(folder),
        signers=settings.signers,
    )


def app_digest(folder: CoordinatorFolder) -> str:
    """Return the SHA-256 of the bundle in use; empty where there is none. Raises BundleError."""
    agreed = read_agreed(folder.app)
    return agreed.bundle.digest if agreed else ""


def read_signers(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``NAME=FILE.pub`` texts into names and public keys. Raises DeploymentError."""
    signers = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise DeploymentError(f"--signer {pair!r} is not of the form NAME=FILE.pub")
        try:
            signers[name] = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeploymentError(f"--signer {pair}: {file} cannot be read ({error})") from error
    return signers


def read_address(text: str) -> Address:
    """Read ``--address``. Raises DeploymentError."""
    return parse_address(text, "--address")
