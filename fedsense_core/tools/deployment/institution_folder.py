"""An institution's folder: where everything of it lies, and what ``join`` noted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fedsense_core.tools.deployment.documents import Document, read_document, toml_of
from fedsense_core.tools.deployment.invitation import Invitation, read_invitation
from fedsense_core.tools.deployment.private_files import write_private

DEFAULT_FOLDER = Path("~/.fedsense/institution")
DEFAULT_PORT = 9094
"""Flower's own, for a SuperNode's processes among themselves."""
JOIN = "`fedsense institution join federation.toml --site site.toml` makes an institution's folder"
COMMENT = """Written by `fedsense institution join`. `site` is the site file.
`port` is for Flower's own processes, on 127.0.0.1."""


class InstitutionSettings(Document):
    """``institution.toml``."""

    site: str
    """Absolute path of the site file."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """Port of the SuperNode on 127.0.0.1."""


@dataclass(frozen=True)
class InstitutionFolder:
    """Paths below ``--state``."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """Site file and port."""
        return self.path / "institution.toml"

    @property
    def own_site_file(self) -> Path:
        """Where the site file is taken from unless ``join`` was given another one."""
        return self.path / "site.toml"

    @property
    def invitation_file(self) -> Path:
        """The coordinator's invitation, as it was accepted."""
        return self.path / "federation.toml"

    @property
    def authority_file(self) -> Path:
        """The certificate by which the coordinator is known."""
        return self.path / "ca.crt"

    @property
    def key(self) -> Path:
        """The private key of the SuperNode. It never leaves this machine."""
        return self.path / "key"

    @property
    def public_key(self) -> Path:
        """What the coordinator gets."""
        return self.path / "key.pub"

    @property
    def trusted_file(self) -> Path:
        """Who may sign apps that run here (Flower's ``--trusted-entities``)."""
        return self.path / "trusted.yaml"

    @property
    def secret_file(self) -> Path:
        """What the SuperExec must know."""
        return self.path / "superexec.secret"

    @property
    def node_file(self) -> Path:
        """What the SuperNode tells the app: site file and folder."""
        return self.path / "node.toml"

    @property
    def loopback(self) -> Path:
        """Folder of the certificate by which a SuperExec knows its own SuperNode."""
        return self.path / "loopback"

    def flower_home(self, program: str) -> Path:
        """Return the FLWR_HOME of a program."""
        return self.path / "flower" / program

    def read(self) -> InstitutionSettings:
        """Return what ``join`` noted. Raises DeploymentError."""
        return read_document(self.settings_file, InstitutionSettings, JOIN)

    def write(self, settings: InstitutionSettings) -> None:
        """Note what ``join`` was given."""
        write_private(self.settings_file, toml_of(settings.model_dump(), COMMENT))

    def read_invitation(self) -> Invitation:
        """Return the invitation that was accepted. Raises DeploymentError."""
        if not self.invitation_file.exists():
            read_document(self.settings_file, InstitutionSettings, JOIN)  # says which is missing first
        return read_invitation(self.invitation_file)
