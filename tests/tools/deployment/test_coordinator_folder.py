"""`fedsense coordinator init`, `renew` and `invitation`: certificates that TLS accepts, keys that
nobody else reads, an authority's key that is nowhere."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner, Result

from fedsense_core.tools.cli import app
from fedsense_core.tools.deployment.certificate_checks import read_certificate
from fedsense_core.tools.deployment.certificates import make_authority, make_server_certificate, pem_of, utc_now
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.invitation import read_invitation
from fedsense_core.tools.deployment.parts import coordinator_parts
from fedsense_core.tools.deployment.setting_up import check_coordinator

PASSPHRASE = "correct horse battery staple"
SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGpJjLFNuoMiWrISkJhiAEyk1nP2AZ1Dn0XWJZL8Z5j somebody"


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    return CoordinatorFolder(tmp_path / "coordinator")


def coordinator(folder: CoordinatorFolder, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["coordinator", *arguments, "--state", str(folder.path)], input=typed)


def made(folder: CoordinatorFolder, *options: str, typed: str = "") -> CoordinatorFolder:
    result = coordinator(folder, "init", "--address", "fl.example.org", *options, typed=typed)
    assert result.exit_code == 0, result.output
    return folder


def handshake(folder: CoordinatorFolder, name: str, authority: bytes | None = None) -> str:
    """Return "" where a client that trusts the authority accepts the server under a name, else
    why not."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder.server_certificate, folder.server_key)
    trusting = ssl.create_default_context(cadata=(authority or folder.authority_file.read_bytes()).decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            serving.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        trusting.wrap_socket(near, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        near.close()
        server.join()
    return ""


def test_certificate_is_accepted_under_its_names_and_no_other(folder: CoordinatorFolder) -> None:
    made(folder, "--also", "192.0.2.7")
    for name in ("fl.example.org", "192.0.2.7", "localhost", "127.0.0.1"):
        assert handshake(folder, name) == ""
    assert "mismatch" in handshake(folder, "example.org")
    stranger = pem_of(make_authority("another", utc_now()).certificate)
    assert handshake(folder, "localhost", stranger) != ""


def test_everything_is_for_one_user_and_the_key_of_the_authority_is_nowhere(folder: CoordinatorFolder) -> None:
    made(folder)
    for path in (folder.path, *folder.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    keys = [path for path in folder.path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [folder.server_key]
    authority = read_certificate(folder.authority_file, "")
    server = serialization.load_pem_private_key(folder.server_key.read_bytes(), None)
    assert server.public_key() != authority.public_key()


def test_server_behind_a_public_address_listens_on_loopback_with_a_proxy_before_it(folder: CoordinatorFolder) -> None:
    settings = made(folder).read()
    assert (settings.address, settings.port) == ("fl.example.org:8443", 8444)
    assert settings.proxy is not None
    assert settings.proxy.listen == "0.0.0.0:8443"


def test_proxy_is_started_with_the_folders_own_certificate_where_there_is_one(
    folder: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/sbin/{name}")
    made(folder)
    (part,) = coordinator_parts(folder, "proxy")
    assert part.command[0] == "/usr/sbin/nginx"
    assert (part.port, part.home) == (8443, folder.path / "proxy")
    text = (part.home / "nginx.conf").read_text(encoding="utf-8")
    assert "listen 0.0.0.0:8443 ssl;" in text
    assert "proxy_pass https://127.0.0.1:8444;" in text
    assert f'ssl_certificate_key "{folder.server_key}";' in text
    settings = folder.read()
    folder.write(settings.model_copy(update={"proxy": None}))
    assert "proxy" not in [part.name for part in coordinator_parts(folder, None)]
    with pytest.raises(DeploymentError, match=r"no table \[proxy\]"):
        coordinator_parts(folder, "proxy")


def test_kept_key_renews_the_certificate_and_institutions_notice_nothing(
    folder: CoordinatorFolder, tmp_path: Path
) -> None:
    key_file = tmp_path / "stick" / "ca.key"
    made(folder, "--ca-key", str(key_file), typed=f"{PASSPHRASE}\n")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key_file.read_bytes()
    trusted, before = folder.authority_file.read_bytes(), folder.server_certificate.read_bytes()
    wrong = coordinator(folder, "renew", "--ca-key", str(key_file), typed="something else entirely\n")
    assert wrong.exit_code == 2
    assert "the passphrase is another one" in wrong.output
    assert folder.server_certificate.read_bytes() == before
    assert coordinator(folder, "renew", "--ca-key", str(key_file), typed=f"{PASSPHRASE}\n").exit_code == 0
    assert folder.server_certificate.read_bytes() != before
    assert folder.authority_file.read_bytes() == trusted
    assert handshake(folder, "fl.example.org", trusted) == ""
    moved = folder.settings_file.read_text().replace("fl.example.org:8443", "moved.example.org:8443")
    folder.settings_file.write_text(moved)
    assert coordinator(folder, "renew", "--ca-key", str(key_file), typed=f"{PASSPHRASE}\n").exit_code == 0
    assert handshake(folder, "moved.example.org", trusted) == ""


def test_discarded_key_renews_by_a_new_authority_alone(folder: CoordinatorFolder) -> None:
    made(folder)
    trusted = folder.authority_file.read_bytes()
    refused = coordinator(folder, "renew")
    assert refused.exit_code == 2
    assert "--new-authority" in refused.output
    assert coordinator(folder, "renew", "--new-authority").exit_code == 0
    assert handshake(folder, "localhost") == ""
    assert handshake(folder, "localhost", trusted) != ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--address", "https://fl.example.org"], "'https://fl.example.org' is no address"),
        (["--address", "fl.example.org:70000"], "a port from 1 to 65535"),
        (["--address", "300.1.1.1"], "'300.1.1.1' is no address"),
        (["--address", "fl.example.org", "--port", "8443"], "--port 8443 is the port of --address"),
        (["--address", "fl.example.org", "--ca-key", "STATE/ca.key"], "choose a place outside"),
        (["--address", "fl.example.org", "--ca-key", "OUTSIDE/ca.key"], "the passphrase has 5 characters"),
        (["--address", "fl.example.org", "--signer", "who"], "--signer 'who' is not of the form NAME=FILE.pub"),
    ],
)
def test_wrong_options_make_nothing_and_say_what_to_do(
    folder: CoordinatorFolder, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    places = {"STATE": str(folder.path), "OUTSIDE": str(tmp_path / "outside")}
    for word, place in places.items():
        arguments = [argument.replace(word, place) for argument in arguments]
    result = coordinator(folder, "init", *arguments, typed="short\n")
    assert result.exit_code == 2
    assert reason in result.output
    assert not folder.path.exists()


def test_folder_is_never_made_over_another(folder: CoordinatorFolder) -> None:
    trusted = made(folder).authority_file.read_bytes()
    assert "is a coordinator's folder already" in coordinator(folder, "init", "--address", "localhost").output
    assert folder.authority_file.read_bytes() == trusted


def test_certificate_warns_for_thirty_days_and_then_stops(folder: CoordinatorFolder) -> None:
    made(folder)
    end = read_certificate(folder.server_certificate, "").not_valid_after_utc
    assert check_coordinator(folder, end - timedelta(days=31)) == []
    (warning,) = check_coordinator(folder, end - timedelta(days=29, hours=1))
    assert "expires in 29 days" in warning
    assert "`fedsense coordinator renew`" in warning
    with pytest.raises(
        DeploymentError, match=r"server\.pem: the certificate expired on .*`fedsense coordinator renew`"
    ):
        check_coordinator(folder, end)
    with pytest.raises(DeploymentError, match="set the clock"):
        check_coordinator(folder, datetime(2020, 1, 1, tzinfo=UTC))


def test_what_is_wrong_in_the_folder_is_named(folder: CoordinatorFolder, tmp_path: Path) -> None:
    made(folder)

    def reason() -> str:
        with pytest.raises(DeploymentError) as raised:
            check_coordinator(folder, utc_now())
        return str(raised.value)

    folder.secret_file.chmod(0o644)
    assert f"{folder.secret_file} has mode 0644" in reason()
    folder.secret_file.chmod(0o600)
    stranger = make_server_certificate(make_authority("another", utc_now()), ["localhost"], utc_now())
    own = folder.server_certificate.read_bytes(), folder.server_key.read_bytes()
    folder.server_certificate.write_bytes(stranger.certificate)
    assert "server.key is not the key of" in reason()
    folder.server_key.write_bytes(stranger.key)
    assert "was not issued by the authority in ca.crt" in reason()
    folder.server_certificate.write_bytes(own[0])
    folder.server_key.write_bytes(own[1])
    text = folder.settings_file.read_text()
    for wrong, expected in (
        (text.replace("8444", '"8444"'), "port = '8444'"),
        (text.replace("port =", "prot ="), "`port` is missing"),
        (text.replace("fl.example.org:8443", "nowhere:0"), "address = 'nowhere:0'"),
        (f"adress = 'x'\n{text}", "`adress` is no field of this file. Did you mean 'address'?"),
        (text.replace("fl.example.org:8443", "other.example.org:8443"), "server.pem is not for other.example.org"),
        ("not toml", "cannot be read"),
    ):
        folder.settings_file.write_text(wrong)
        assert str(folder.settings_file) in reason() or "server.pem" in expected
        assert expected in reason()


def test_invitation_holds_what_institutions_need_and_nothing_else(folder: CoordinatorFolder, tmp_path: Path) -> None:
    (tmp_path / "signer.pub").write_text(SIGNER + "\n")
    made(folder, "--name", "north sea", "--signer", f"somebody={tmp_path / 'signer.pub'}")
    result = coordinator(folder, "invitation", "--out", str(tmp_path / "federation.toml"))
    assert result.exit_code == 0, result.output
    invitation = read_invitation(tmp_path / "federation.toml")
    assert (invitation.name, invitation.address) == ("north sea", "fl.example.org:8443")
    assert invitation.certificate.encode() == folder.authority_file.read_bytes()
    assert invitation.signers == {"somebody": SIGNER}
    assert "PRIVATE" not in (tmp_path / "federation.toml").read_text()
    fingerprint = result.output.rpartition(": ")[2].strip()
    assert fingerprint in (tmp_path / "federation.toml").read_text(), "for a comparison by telephone"
