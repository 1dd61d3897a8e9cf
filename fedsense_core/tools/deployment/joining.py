"""What an institution does once, from the coordinator's invitation and its own site file; and what
is checked before its SuperNode starts."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fedsense_core.data.sites.site_file import SiteFile, read_strict_toml
from fedsense_core.tools.app_bundle.trusted_signers import read_trusted, write_trusted
from fedsense_core.tools.deployment.addresses import parse_address
from fedsense_core.tools.deployment.certificate_checks import expiry_warning
from fedsense_core.tools.deployment.certificates import (
    AUTHORITY_LIFE,
    fingerprint,
    make_authority,
    make_server_certificate,
    pem_of,
)
from fedsense_core.tools.deployment.coordinator_folder import LOOPBACK
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.institution_folder import JOIN, InstitutionFolder, InstitutionSettings
from fedsense_core.tools.deployment.invitation import Invitation, read_invitation
from fedsense_core.tools.deployment.node_keys import (
    fingerprint_of,
    make_key_pair,
    read_private_key,
    write_public,
)
from fedsense_core.tools.deployment.parts import write_node_file
from fedsense_core.tools.deployment.private_files import private_folder, read_private, write_private, write_secret

RENEWED_BY = "Only the coordinator can renew it (`fedsense coordinator renew`); ask there."
CONNECT_S = 10.0


@dataclass(frozen=True)
class Joined:
    """What a person needs to know after joining."""

    name: str
    """The name in the site file, under which the coordinator has to admit the key."""
    public_key: Path
    key: str
    """Fingerprint of the public key."""
    certificate: str
    """Fingerprint of the coordinator's certificate, to be compared over another channel."""
    unsigned: bool
    """Whether nobody is known who signs the app."""


@dataclass(frozen=True)
class Choices:
    """The options of ``join``."""

    site: Path
    port: int
    replace: bool = False
    """Take an invitation that differs from the accepted one."""
    new_key: bool = False
    """Make a new key pair in place of the present one."""


def join(folder: InstitutionFolder, invitation_file: Path, choices: Choices, now: datetime) -> Joined:
    """Make an institution's folder, or bring an existing one up to a new invitation; its key
    stays.

    Raises DeploymentError or SiteError naming what is wrong.
    """
    invitation = read_invitation(invitation_file)
    expiry_warning(invitation.authority, f"{invitation_file}: certificate", RENEWED_BY, now)
    name = read_strict_toml(choices.site, SiteFile).name
    _check_same(folder, invitation, choices.replace)
    private_folder(folder.path)
    if choices.new_key or not folder.key.exists():
        make_key_pair(folder.key, folder.public_key, name)
    key = read_private_key(folder.key, "`fedsense institution join --new-key` makes a new one").public_key()
    write_public(folder.public_key, key, name)
    write_secret(folder.secret_file)
    _write_loopback(folder, now)
    _write_trusted(folder, invitation)
    write_private(folder.authority_file, pem_of(invitation.authority))
    write_private(folder.invitation_file, invitation.to_toml())
    folder.write(InstitutionSettings(site=str(choices.site), port=choices.port))
    certificate = fingerprint(invitation.authority)
    return Joined(name, folder.public_key, fingerprint_of(key), certificate, not folder.trusted_file.exists())


def check_institution(folder: InstitutionFolder, now: datetime, only: str | None = None) -> list[str]:
    """Return warnings about certificates that run out soon, and bring derived files up to date.

    ``only`` names a part that is started alone. A SuperExec needs neither the key nor the
    coordinator, and may not be able to reach them.

    Raises DeploymentError or SiteError where something is missing, wrong or expired.
    """
    settings, invitation = folder.read(), folder.read_invitation()
    read_strict_toml(Path(settings.site), SiteFile)
    read_private(folder.secret_file, JOIN)
    if only == "superexec":
        return []
    read_private_key(folder.key, f"restore it from a backup; else {JOIN}, and the coordinator has to admit a new key")
    where = str(folder.authority_file)
    found = [expiry_warning(invitation.authority, where, RENEWED_BY, now), servers_expiry(invitation, now)]
    if invitation.signers or folder.trusted_file.exists():
        read_trusted(folder.trusted_file)
    write_private(folder.authority_file, pem_of(invitation.authority))
    _write_loopback(folder, now)
    write_node_file(folder)
    return [warning for warning in found if warning]


def servers_expiry(invitation: Invitation, now: datetime) -> str | None:
    """Return a warning where the coordinator's certificate runs out soon.

    Asks the coordinator; where it cannot be reached, says nothing, since a SuperNode waits for it.
    Raises DeploymentError where its certificate has expired or is not one of this federation.
    """
    address = parse_address(invitation.address, "address")
    context = ssl.create_default_context(cadata=invitation.certificate)
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as connection,
        ):
            shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(
            f"the coordinator at {address} shows a certificate that is refused: {error.verify_message}. {RENEWED_BY}"
        ) from error
    except OSError:
        return None
    return expiry_warning(shown, f"the coordinator at {address}", RENEWED_BY, now)


def _check_same(folder: InstitutionFolder, invitation: Invitation, replace: bool) -> None:
    """Raise DeploymentError where another invitation was accepted before, unless it may be
    replaced."""
    if replace or not folder.invitation_file.exists():
        return
    accepted = folder.read_invitation()
    changed = [field for field in Invitation.model_fields if getattr(accepted, field) != getattr(invitation, field)]
    if changed:
        raise DeploymentError(
            f"{folder.invitation_file} was accepted before, and this invitation has another {' and '.join(changed)}. "
            "Ask the coordinator, by another channel, whether that is meant, and then add --replace"
        )


def _write_loopback(folder: InstitutionFolder, now: datetime) -> None:
    """Write the certificate by which the SuperExec knows its SuperNode, unless there is one.

    Without it another user of this machine could take the port and hand the SuperExec a task.
    """
    files = [folder.loopback / name for name in ("ca.crt", "server.pem", "server.key")]
    if all(path.exists() for path in files):
        return
    private_folder(folder.loopback)
    authority = make_authority("FedSense institution, this machine only", now)
    made = make_server_certificate(authority, [LOOPBACK, "localhost"], now, AUTHORITY_LIFE)
    for path, content in zip(files, (pem_of(authority.certificate), made.certificate, made.key), strict=True):
        write_private(path, content)


def _write_trusted(folder: InstitutionFolder, invitation: Invitation) -> None:
    """Write who may sign apps, for Flower. A person may take keys out, or add some."""
    if invitation.signers and (not folder.trusted_file.exists() or _invited_anew(folder, invitation)):
        write_trusted(folder.trusted_file, invitation.signers)


def _invited_anew(folder: InstitutionFolder, invitation: Invitation) -> bool:
    return not folder.invitation_file.exists() or folder.read_invitation().signers != invitation.signers
