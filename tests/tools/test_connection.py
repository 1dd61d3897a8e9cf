"""What the doctor says of a coordinator that cannot be reached or trusted: each cause by its own
name."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from socket import socket

import pytest

from fedsense_core.tools.deployment.addresses import Address
from fedsense_core.tools.deployment.certificates import make_authority, make_server_certificate, pem_of, utc_now
from fedsense_core.tools.health.connection import connection_findings
from fedsense_core.tools.health.findings import Finding
from fedsense_core.tools.runner.processes import free_port

NOW = utc_now()
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
def served(folder: Path) -> Iterator[Callable[..., Address]]:
    """Return a function that answers on a port of 127.0.0.1, over TLS with a new certificate or in
    plain text, and hangs up."""
    sockets: list[socket] = []

    def answer(listening: socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                if context is None:
                    plain.sendall(b"SSH-2.0-server\r\n")
                else:
                    context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()

    def serve(names: list[str], began: datetime, tls: bool = True, life: timedelta = YEAR) -> Address:
        context = None
        if tls:
            authority = make_authority("test", began)
            made = make_server_certificate(authority, names, began, life)
            (folder / "ca.crt").write_bytes(pem_of(authority.certificate))
            (folder / "server.pem").write_bytes(made.certificate)
            (folder / "server.key").write_bytes(made.key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
        listening = socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        sockets.append(listening)
        threading.Thread(target=answer, args=(listening, context), daemon=True).start()
        return Address("127.0.0.1", listening.getsockname()[1])

    yield serve
    for one in sockets:
        one.close()


def look(address: Address, folder: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in connection_findings(address, folder / "ca.crt", None, NOW)}


@pytest.mark.parametrize(
    ("names", "began", "life", "level", "words"),
    [
        (["127.0.0.1"], NOW, YEAR, "ok", "of this federation, valid until"),
        (["127.0.0.1"], NOW, timedelta(days=20), "warning", "the certificate expires in"),
        (["127.0.0.1"], NOW - 2 * YEAR, YEAR, "failure", "its certificate has expired"),
        (["127.0.0.1"], NOW + 0.1 * YEAR, YEAR, "failure", "compare this machine's clock"),
        (["fl.example.org"], NOW, YEAR, "failure", "its certificate is for other names than this address"),
    ],
)
def test_certificates_that_are_shown_are_told_apart(
    served: Callable[..., Address],
    folder: Path,
    names: list[str],
    began: datetime,
    life: timedelta,
    level: str,
    words: str,
) -> None:
    finding = look(served(names, began, life=life), folder)["certificate shown"]
    assert (finding.level, words in finding.said) == (level, True), finding.said


def test_another_authority_no_tls_nobody_and_an_unknown_name_are_told_apart(
    served: Callable[..., Address], folder: Path
) -> None:
    one = served(["127.0.0.1"], NOW)
    served(["127.0.0.1"], NOW)  # writes another ca.crt
    assert "is of another authority than" in look(one, folder)["certificate shown"].said
    assert "does not speak TLS" in look(served([], NOW, tls=False), folder)["certificate shown"].said
    refused = look(Address("127.0.0.1", free_port()), folder)
    assert refused.keys() == {"port"}
    assert "nobody listens there" in refused["port"].said
    assert "is not known here" in look(Address("no-such-host.invalid", 1), folder)["port"].said
