"""Certificates of a loopback server, as a coordinator has them."""

from __future__ import annotations

from pathlib import Path

from fedsense_core.tools.deployment.certificates import make_authority, make_server_certificate, pem_of, utc_now


def write_certificates(folder: Path, *names: str) -> Path:
    """Write ``ca.crt``, ``server.pem`` and ``server.key`` for localhost, 127.0.0.1 and more
    names."""
    folder.mkdir(parents=True)
    authority = make_authority("a federation of tests", utc_now())
    server = make_server_certificate(authority, ["localhost", "127.0.0.1", *names], utc_now())
    (folder / "ca.crt").write_bytes(pem_of(authority.certificate))
    (folder / "server.pem").write_bytes(server.certificate)
    (folder / "server.key").write_bytes(server.key)
    return folder
