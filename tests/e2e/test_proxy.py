"""A real nginx with the configuration that FedSense writes: what passes, and what does not."""

from __future__ import annotations

import http.server
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from certificates import write_certificates

from fedsense_core.tools.deployment.proxy import FleetProxy, proxy_command
from fedsense_core.tools.runner.processes import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(NGINX is None, reason="no program nginx: install the system's package nginx-light"),
]
PULL = "/v1/fleet/pull-messages"
HANG_UP = "/v1/fleet/hang-up"
CHUNK = 5 * 2**20 + 1000
"""Bytes of Flower's largest request: a chunk of an array and its frame."""


@dataclass
class Upstream:
    """In the SuperLink's place: answers everything and remembers what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    """(request line, who it says it is, bytes of the body)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coordinator")


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Path:
    return write_certificates(folder / "certificates")


@pytest.fixture(scope="module")
def upstream(certificates: Path) -> Iterator[Upstream]:
    found = Upstream()

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            found.asked.append((self.requestline, self.headers.get("X-Forwarded-For", ""), len(body)))
            if self.path == HANG_UP:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_PUT = do_OPTIONS = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def running(proxy: FleetProxy) -> Iterator[Path]:
    """Run nginx; give the file of what it says."""
    log = proxy.folder.with_suffix(".log")
    with log.open("wb") as file:
        nginx = subprocess.Popen(proxy_command(proxy), stdout=file, stderr=file)
    try:
        _await(proxy.port)
        yield log
    finally:
        nginx.terminate()
        nginx.wait()


@pytest.fixture(scope="module")
def proxy(folder: Path, certificates: Path, upstream: Upstream) -> Iterator[FleetProxy]:
    proxy = FleetProxy("127.0.0.1", free_port(), upstream.port, certificates, folder / "proxy")
    with running(proxy):
        yield proxy


@pytest.fixture
def say(proxy: FleetProxy, upstream: Upstream) -> Callable[[bytes], bytes]:
    """Return a function that sends bytes to the proxy and returns all that comes back."""
    upstream.asked.clear()
    return lambda request: exchange(proxy, request)


@contextmanager
def connected(proxy: FleetProxy) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(proxy.certificates / "ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        yield stream


def exchange(proxy: FleetProxy, request: bytes) -> bytes:
    """Send bytes, and return what comes back: to the end of an error's page, or of the
    connection."""
    answer = bytearray()
    with connected(proxy) as stream:
        stream.sendall(request)
        while not answer.endswith(b"</html>\r\n") and (part := stream.recv(65536)):
            answer += part
    return bytes(answer)


def request(target: str, *headers: str, method: str = "POST", version: str = "1.1", body: bytes = b"") -> bytes:
    """Return the bytes of one request, exactly as they are given."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", "Connection: close", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


SMUGGLED = request("/v1/control/list-runs")
REFUSED = {
    "control": request("/v1/control/start-run"),
    "runtime": request("/v1/runtime/pull-task"),
    "health": request("/health", method="GET"),
    "pages of the interface": request("/docs", method="GET"),
    "root": request("/"),
    "doubled slash": request("//v1/control/start-run"),
    "doubled slash before what may pass": request("//v1/fleet/pull-messages"),
    "doubled slash within": request("/v1/fleet//pull-messages"),
    "up": request("/v1/fleet/../control/start-run"),
    "up, to where it began": request("/v1/control/../fleet/pull-messages"),
    "encoded up": request("/v1/fleet/%2e%2e/control/start-run"),
    "encoded up, upper case": request("/v1/fleet/%2E%2E/control/start-run"),
    "encoded slash": request("/v1/fleet/..%2fcontrol/start-run"),
    "encoded twice": request("/v1/fleet/%252e%252e/control/start-run"),
    "encoded letter": request("/v1/%66leet/pull-messages"),
    "encoded end of line": request("/v1/fleet/x%0d%0aX:%20y"),
    "backslash": request("/v1/fleet/..\\control\\start-run"),
    "semicolon": request("/v1/fleet/..;/control/start-run"),
    "dot": request("/v1/fleet/./pull-messages"),
    "here, then up": request("/v1/./fleet/.././control/start-run"),
    "argument": request("/v1/fleet/pull-messages?a=/v1/control/"),
    "fragment": request("/v1/fleet/pull-messages#/../../control/start-run"),
    "no name": request("/v1/fleet/"),
    "no slash": request("/v1/fleet"),
    "longer name": request("/v1/fleetwood/pull-messages"),
    "absolute form": request("https://localhost/v1/control/start-run"),
    "absolute form of another": request("https://127.0.0.1:1/v1/control/start-run"),
    "absolute form, up": request("https://localhost/v1/fleet/../control/start-run"),
    "authority in the path": request("/https://localhost/v1/fleet/../control/start-run"),
    "upper case": request("/V1/FLEET/pull-messages"),
    "upper case of control": request("/V1/CONTROL/start-run"),
    "upper case of a name": request("/v1/fleet/PULL-MESSAGES"),
    "HTTP/1.0": request("/v1/control/start-run", version="1.0"),
    "HTTP/1.0 of what may pass": request(PULL, version="1.0"),
    "HTTP/0.9": b"GET /v1/control/list-runs\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol's number": request(PULL, version="3.0"),
    "another verb": request(PULL, method="GET"),
    "yet another verb": request(PULL, method="PUT"),
    "a verb of proxies": request("127.0.0.1:8444", method="CONNECT"),
    "no verb": request(PULL, method="POST\t/v1/control/list-runs"),
    "two lengths": request(PULL, "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
    "two lengths in one": request(PULL, f"Content-Length: 0, {len(SMUGGLED)}", body=SMUGGLED),
    "signed length": request(PULL, "Content-Length: +0", body=SMUGGLED),
    "length in hexadecimal": request(PULL, "Content-Length: 0x10", body=SMUGGLED),
    "length and pieces": request(PULL, f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked", body=SMUGGLED),
    "pieces": request(PULL, "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "no host": b"POST /v1/fleet/pull-messages HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "two hosts": request(PULL, "Host: 127.0.0.1:1"),
    "header with a zero": request(PULL, "X: a\0b"),
    "path with a zero": request("/v1/fleet/pull-messages\0"),
    "end of line within": request("/v1/fleet/x HTTP/1.1\r\nX: y\r\n\r\nPOST /v1/control/list-runs"),
    "too large": request(PULL, f"Content-Length: {16 * 2**20 + 1}"),
    "no TLS's worth": b"\x16\x03\x01\x00\x05hello\r\n\r\n",
}
"""What may never reach the SuperLink, whatever else the request says."""


@pytest.mark.parametrize("what", REFUSED)
def test_nothing_but_the_fleet_api_reaches_the_superlink(
    what: str, say: Callable[[bytes], bytes], upstream: Upstream
) -> None:
    answer = say(REFUSED[what])
    assert re.search(rb"\A(HTTP/1.1 |<html>\s*<head><title>)(400|403|413|505) ", answer), answer[:60]
    assert upstream.asked == []


def test_second_request_of_a_connection_is_judged_as_the_first(
    say: Callable[[bytes], bytes], upstream: Upstream
) -> None:
    first = request(PULL, body=b"first").replace(b"Connection: close\r\n", b"")
    answer = say(first + request("/v1/control/start-run", body=b"second"))
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"403"]
    assert [line for line, *_ in upstream.asked] == [f"POST {PULL} HTTP/1.1"]


def test_fleet_request_passes_whole_and_says_where_it_came_from(
    say: Callable[[bytes], bytes], upstream: Upstream
) -> None:
    answer = say(request(PULL, "X-Forwarded-For: 10.9.8.7", "Forwarded: for=10.9.8.7", body=b"x" * CHUNK))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"ok")
    assert upstream.asked == [(f"POST {PULL} HTTP/1.1", "127.0.0.1", CHUNK)]


def test_superlink_sees_no_half_request_and_the_disk_none_at_all(proxy: FleetProxy, upstream: Upstream) -> None:
    upstream.asked.clear()
    half = request(PULL, f"Content-Length: {CHUNK}", body=b"x" * (CHUNK // 2))
    with connected(proxy) as stream:
        stream.sendall(half)
        time.sleep(0.2)
        files = sorted(path.name for path in proxy.folder.rglob("*") if path.is_file())
        assert files == ["nginx.conf", "nginx.pid"]
    time.sleep(0.1)
    assert upstream.asked == []


def test_one_address_cannot_hold_all_of_the_memory(proxy: FleetProxy, upstream: Upstream) -> None:
    half = request(PULL, f"Content-Length: {CHUNK}", body=b"x")
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(connected(proxy)).sendall(half)
        for _ in range(20):  # until nginx has seen them all
            if b" 503 " in exchange(proxy, request(PULL, body=b"x")):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the 65th request is in work too")
    assert {size for *_, size in upstream.asked} <= {1}


def test_request_is_never_sent_twice(say: Callable[[bytes], bytes], upstream: Upstream) -> None:
    """Flower refuses a repeated upload, and the whole reply is lost."""
    answer = say(request(HANG_UP, body=b"x"))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(upstream.asked) == 1


def test_superlink_of_another_authority_is_not_talked_to(folder: Path, upstream: Upstream, proxy: FleetProxy) -> None:
    upstream.asked.clear()
    others = write_certificates(folder / "others")
    stranger = replace(proxy, port=free_port(), certificates=others, folder=folder / "stranger")
    with running(stranger) as log:
        assert exchange(stranger, request(PULL)).startswith(b"HTTP/1.1 502 ")
        assert "certificate verify error" in log.read_text()
    assert upstream.asked == []


def _await(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            probe.settimeout(0.05)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")
