"""`fedsense institution join` and what is checked before a SuperNode starts."""

from __future__ import annotations

import json
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from federation import write_site
from typer.testing import CliRunner, Result

from fedsense_core.tools.app_bundle.bundle import BundleError
from fedsense_core.tools.app_bundle.trusted_signers import read_trusted
from fedsense_core.tools.cli import app
from fedsense_core.tools.deployment.certificate_checks import read_certificate
from fedsense_core.tools.deployment.certificates import make_authority, pem_of, utc_now
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.institution_folder import InstitutionFolder
from fedsense_core.tools.deployment.invitation import Invitation
from fedsense_core.tools.deployment.joining import check_institution
from fedsense_core.tools.deployment.node_keys import fingerprint_of, read_public_key
from fedsense_core.tools.deployment.parts import institution_parts, prepare

SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGpJjLFNuoMiWrISkJhiAEyk1nP2AZ1Dn0XWJZL8Z5j somebody"


@pytest.fixture(scope="module")
def authority() -> bytes:
    return pem_of(make_authority("test", utc_now()).certificate)


@pytest.fixture
def folder(tmp_path: Path) -> InstitutionFolder:
    write_site(tmp_path, "alpha", 0)
    return InstitutionFolder(tmp_path / "institution")


def invite(tmp_path: Path, authority: bytes, **changes: object) -> Path:
    values = {"name": "test", "address": "127.0.0.1:1", "certificate": authority.decode()} | changes
    path = tmp_path / "federation.toml"
    path.write_bytes(Invitation.model_validate(values).to_toml())
    return path


def institution(folder: InstitutionFolder, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["institution", *map(str, arguments), "--state", str(folder.path)])


def joined(folder: InstitutionFolder, invitation: Path, *options: str) -> Result:
    result = institution(folder, "join", invitation, "--site", folder.path.parent / "alpha.toml", *options)
    assert result.exit_code == 0, result.output
    return result


def test_joining_makes_what_flower_needs_for_one_user_alone(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    result = joined(folder, invite(tmp_path, authority, signers={"somebody": SIGNER}))
    public = read_public_key(folder.public_key)
    assert fingerprint_of(public) in result.output
    assert str(folder.public_key) in result.output
    assert "alpha" in result.output
    assert "nobody is known who signs" not in result.output
    assert folder.authority_file.read_bytes() == authority
    assert list(read_trusted(folder.trusted_file)) == ["somebody"]
    for path in (folder.path, *folder.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path == folder.public_key, path
    assert check_institution(folder, utc_now()) == []
    command = " ".join(institution_parts(folder, "supernode")[0].command)
    assert f"--trusted-entities {folder.trusted_file}" in command
    assert "--isolation process --superexec-auth-secret-file" in command


def test_fingerprint_is_the_one_that_openssh_prints(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    joined(folder, invite(tmp_path, authority))
    try:
        shown = subprocess.run(["ssh-keygen", "-lf", folder.public_key], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no ssh-keygen here")
    assert fingerprint_of(read_public_key(folder.public_key)) in shown.stdout


def test_another_invitation_is_taken_only_when_it_is_meant_and_the_key_stays(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    joined(folder, invite(tmp_path, authority))
    key = folder.key.read_bytes()
    joined(folder, invite(tmp_path, authority))
    other = invite(tmp_path, pem_of(make_authority("other", utc_now()).certificate), signers={"eve": SIGNER})
    refused = institution(folder, "join", other, "--site", tmp_path / "alpha.toml")
    assert refused.exit_code == 2
    assert "another certificate and signers" in refused.output
    assert folder.authority_file.read_bytes() == authority
    joined(folder, other, "--replace")
    assert folder.authority_file.read_bytes() != authority
    assert folder.key.read_bytes() == key
    joined(folder, other, "--new-key")
    assert folder.key.read_bytes() != key


def test_signer_that_was_taken_out_stays_out_and_no_signer_is_no_leave_for_all(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    invitation = invite(tmp_path, authority, signers={"one": SIGNER, "two": SIGNER})
    joined(folder, invitation)
    folder.trusted_file.write_text(json.dumps({"two": SIGNER}))
    check_institution(folder, utc_now())
    joined(folder, invitation)
    assert list(read_trusted(folder.trusted_file)) == ["two"]
    for text in ("", "{}", "one: ssh-rsa AAAA"):
        folder.trusted_file.write_text(text)
        with pytest.raises(BundleError, match=r"trusted\.yaml"):
            check_institution(folder, utc_now())
        with pytest.raises(BundleError, match=r"trusted\.yaml"):
            prepare(institution_parts(folder, "supernode")[0])  # before each start, of one that died too
    folder.trusted_file.unlink()
    with pytest.raises(BundleError, match=r"trusted\.yaml"):
        check_institution(folder, utc_now())


def test_superexec_of_its_own_unit_needs_neither_the_key_nor_leave_to_write(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    joined(folder, invite(tmp_path, authority))
    folder.key.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert check_institution(folder, utc_now(), "superexec") == []
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before
    with pytest.raises(DeploymentError, match="key"):
        check_institution(folder, utc_now(), "supernode")


def test_certificate_of_the_federation_warns_and_stops_here_too(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    joined(folder, invite(tmp_path, authority))
    end = read_certificate(folder.authority_file, "").not_valid_after_utc
    (warning,) = check_institution(folder, end - timedelta(days=3, hours=1))
    assert "expires in 3 days" in warning
    with pytest.raises(DeploymentError, match=r"expired on .* Only the coordinator can renew it"):
        check_institution(folder, end)


def test_wrong_invitations_and_folders_are_refused_with_file_field_and_value(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    good = invite(tmp_path, authority).read_text()
    path = tmp_path / "wrong.toml"
    for wrong, reason in (
        (good.replace("127.0.0.1:1", "nowhere:x"), "address = 'nowhere:x'"),
        (good.replace("BEGIN", "BEGUN"), "certificate = "),
        (good.replace('app_digest = ""', 'app_digest = "abc"'), "app_digest = 'abc': it is no SHA-256"),
        (good + '\n[signers]\neve = "ssh-rsa AAAA"\n', "the key of 'eve' is no Ed25519 public key"),
        (good.replace("address", "adress"), "`address` is missing"),
    ):
        path.write_text(wrong)
        result = institution(folder, "join", path, "--site", tmp_path / "alpha.toml")
        assert result.exit_code == 2
        assert "wrong.toml" in result.output
        assert reason in result.output
        assert "ask the coordinator for a new invitation" in result.output
        assert not folder.path.exists()
    assert "fedsense institution join" in institution(folder, "serve").output
    joined(folder, invite(tmp_path, authority))
    folder.key.write_bytes(folder.public_key.read_bytes())
    assert "key holds no private key" in institution(folder, "serve").output
    folder.key.chmod(0o644)
    assert "has mode 0644" in institution(folder, "serve").output


def test_private_key_that_was_sent_is_refused_and_to_be_replaced(
    folder: InstitutionFolder, tmp_path: Path, authority: bytes
) -> None:
    joined(folder, invite(tmp_path, authority))
    with pytest.raises(DeploymentError, match="is a private key, which must never leave its institution"):
        read_public_key(folder.key)
