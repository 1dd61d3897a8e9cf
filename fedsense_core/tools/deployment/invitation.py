"""What a coordinator gives to institutions, in one file: where it is, by which certificate they
know it, who signs the app, and which app it is."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from pydantic import Field, field_validator

from fedsense_core.tools.deployment.addresses import parse_address
from fedsense_core.tools.deployment.certificate_checks import parse_certificate
from fedsense_core.tools.deployment.certificates import fingerprint
from fedsense_core.tools.deployment.coordinator_folder import check_signers
from fedsense_core.tools.deployment.documents import DeploymentError, Document, read_document, toml_of

COMMENT = """Invitation to a federation, for `fedsense institution join`.
Nothing in it is secret, but whoever changes it on its way can pose as the coordinator.
Compare the fingerprint of the certificate over another channel, such as the telephone:
{fingerprint}"""
ASK = "ask the coordinator for a new invitation (`fedsense coordinator invitation`)"


class Invitation(Document):
    """``federation.toml``."""

    name: str = Field(min_length=1, max_length=64)
    """Name of the federation."""
    address: str
    """Host and port of the coordinator."""
    certificate: str
    """The certificate of the coordinator's authority, PEM."""
    app_digest: str = ""
    """SHA-256 of the app's bundle, hexadecimal; empty where none was made."""
    signers: dict[str, str] = Field(default={})
    """Who may sign the app: a name, and a public key (Ed25519, OpenSSH)."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            return str(parse_address(text, "it"))
        except DeploymentError as error:
            raise ValueError(str(error).partition(": ")[2]) from None

    @field_validator("certificate")
    @classmethod
    def _is_certificate(cls, text: str) -> str:
        try:
            parse_certificate(text.encode(), "it", "")
        except DeploymentError:
            raise ValueError("it is no certificate in PEM form") from None
        return text

    @field_validator("app_digest")
    @classmethod
    def _is_digest(cls, text: str) -> str:
        if text and not (len(text) == 64 and set(text) <= set("0123456789abcdef")):
            raise ValueError("it is no SHA-256 in hexadecimal digits")
        return text

    @field_validator("signers")
    @classmethod
    def _are_signing_keys(cls, signers: dict[str, str]) -> dict[str, str]:
        return check_signers(signers)

    @property
    def authority(self) -> x509.Certificate:
        """``certificate``, parsed."""
        return parse_certificate(self.certificate.encode(), "certificate", ASK)

    def to_toml(self) -> bytes:
        """Return the file."""
        return toml_of(self.model_dump(), COMMENT.format(fingerprint=fingerprint(self.authority)))


def read_invitation(path: Path) -> Invitation:
    """Read an invitation. Raises DeploymentError naming file, field and value."""
    return read_document(path, Invitation, ASK)
