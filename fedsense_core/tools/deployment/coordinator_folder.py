"""The coordinator's folder: where everything of it lies, and what its file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from fedsense_core.tools.deployment.addresses import Address, is_host, parse_address
from fedsense_core.tools.deployment.documents import DeploymentError, Document, read_document, toml_of
from fedsense_core.tools.deployment.node_keys import is_signing_key
from fedsense_core.tools.deployment.private_files import write_private

DEFAULT_FOLDER = Path("~/.fedsense/coordinator")
LOOPBACK = "127.0.0.1"
"""Where the SuperLink listens: whoever reaches it can start runs."""
INIT = "`fedsense coordinator init --address HOST[:PORT]` makes a coordinator's folder"
COMMENT = """Written by `fedsense coordinator init`. Institutions reach the coordinator at `address`.
The SuperLink itself listens on 127.0.0.1 at `port`, because whoever reaches it can start runs."""


class ProxySection(Document):
    """The proxy between institutions and SuperLink, which passes nothing but ``/v1/fleet/``."""

    listen: str
    """Address and port that it listens on."""

    @field_validator("listen")
    @classmethod
    def _is_address(cls, text: str) -> str:
        return str(_address(text))


class CoordinatorSettings(Document):
    """``coordinator.toml``."""

    name: str = Field(min_length=1, max_length=64)
    """Name of the federation, for people."""
    address: str
    """Host and port under which institutions reach the coordinator."""
    port: int = Field(ge=1, le=65535)
    """Port of the SuperLink on 127.0.0.1."""
    names: list[str] = Field(min_length=1)
    """Host names and IP addresses in the server's certificate."""
    signers: dict[str, str] = Field(default={})
    """Who may sign the app: a name, and a public key (Ed25519, OpenSSH)."""
    proxy: ProxySection | None = None
    """Absent where ``address`` is the SuperLink's own."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        return str(_address(text))

    @field_validator("names")
    @classmethod
    def _are_hosts(cls, names: list[str]) -> list[str]:
        wrong = [name for name in names if not is_host(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is neither a host name nor an IP address")
        return names

    @field_validator("signers")
    @classmethod
    def _are_signing_keys(cls, signers: dict[str, str]) -> dict[str, str]:
        return check_signers(signers)

    @property
    def public(self) -> Address:
        """``address``, parsed."""
        return _address(self.address)

    @property
    def superlink(self) -> Address:
        """Where the SuperLink listens."""
        return Address(LOOPBACK, self.port)


def check_signers(signers: dict[str, str]) -> dict[str, str]:
    """Return ``signers``. Raises ValueError unless each has an Ed25519 public key."""
    wrong = [name for name, line in signers.items() if not is_signing_key(line)]
    if wrong:
        raise ValueError(f"the key of {wrong[0]!r} is no Ed25519 public key in OpenSSH form (`ssh-ed25519 AAAA...`)")
    return signers


def _address(text: str) -> Address:
    try:
        return parse_address(text, "it")
    except DeploymentError as error:
        raise ValueError(str(error).partition(": ")[2]) from None


@dataclass(frozen=True)
class CoordinatorFolder:
    """Paths below ``--state``."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """Address, port and names."""
        return self.path / "coordinator.toml"

    @property
    def certificates(self) -> Path:
        """Folder of certificates and the server's key."""
        return self.path / "certificates"

    @property
    def authority_file(self) -> Path:
        """The certificate of the authority, which institutions get."""
        return self.certificates / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """The certificate that the coordinator shows."""
        return self.certificates / "server.pem"

    @property
    def server_key(self) -> Path:
        """Its key."""
        return self.certificates / "server.key"

    @property
    def secret_file(self) -> Path:
        """What the SuperExec must know."""
        return self.path / "superexec.secret"

    @property
    def database(self) -> Path:
        """Admitted keys, runs, and messages in transit."""
        return self.path / "superlink.db"

    @property
    def app(self) -> Path:
        """The bundle in use."""
        return self.path / "app"

    @property
    def runs(self) -> Path:
        """Run folders that were not given another place."""
        return self.path / "runs"

    def flower_home(self, program: str) -> Path:
        """Return the FLWR_HOME of a program."""
        return self.path / program

    def read(self) -> CoordinatorSettings:
        """Return what the file says. Raises DeploymentError."""
        return read_document(self.settings_file, CoordinatorSettings, INIT)

    def write(self, settings: CoordinatorSettings) -> None:
        """Write the file."""
        write_private(self.settings_file, toml_of(settings.model_dump(), COMMENT))
