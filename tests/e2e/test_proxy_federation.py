"""A real SuperLink behind the proxy, and a real SuperNode that gets out by an HTTPS proxy alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import connect_proxy
import pytest
from certificates import write_certificates

from fedsense_core.tools.deployment.parts import past_proxies
from fedsense_core.tools.deployment.proxy import FleetProxy, proxy_command
from fedsense_core.tools.runner.processes import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
        reason="no program nginx: install the system's package nginx-light",
    ),
]
NAME = "coordinator.example.test"
"""Only the HTTPS proxy knows where that is (RFC 2606: nobody else ever will)."""
BYTES = 12_000_000
"""Of the message: three chunks."""
PROJECT = """\
[project]
name = "echo"
version = "0.1.0"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.42.0"]
[tool.flwr.app]
publisher = "fedsense"
fab-format-version = 1
flwr-version-target = "1.42.0"
fab-include = ["echo.py", "LICENSE"]
[tool.flwr.app.components]
serverapp = "echo:server"
clientapp = "echo:client"
[tool.flwr.app.config]
answer = "{answer}"
"""
APP = """\
import hashlib, json, pathlib, time
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    data = hashlib.shake_128(b"there").digest({bytes})
    content = RecordDict({{"there": ArrayRecord({{"there": Array("uint8", (len(data),), "bytes", data)}})}})
    replies = list(grid.send_and_receive([Message(content, nodes[0], "query")], timeout=120))
    back = replies[0].content["back"]["back"].data
    answer = {{"nodes": len(nodes), "equal": back == data[::-1]}}
    pathlib.Path(context.run_config["answer"]).write_text(json.dumps(answer))


@client.query()
def turn(message, context):
    data = message.content["there"]["there"].data[::-1]
    content = RecordDict({{"back": ArrayRecord({{"back": Array("uint8", (len(data),), "bytes", data)}})}})
    return Message(content, reply_to=message)
"""


@contextmanager
def process(command: list[str], environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Run a program in a folder of its own, with all that it starts; give the file of what it
    says."""
    home.mkdir()
    with (home / "log").open("wb") as log:
        running = subprocess.Popen(
            command,
            env={**environment, "FLWR_HOME": str(home)},
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield home / "log"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def test_supernode_that_gets_out_by_an_https_proxy_alone_takes_part(
    tmp_path: Path, environment: dict[str, str], wait: Callable[..., None]
) -> None:
    certificates = write_certificates(tmp_path / "certificates", NAME)
    authority, key = certificates / "ca.crt", tmp_path / "key"
    superlink, public = free_port(), free_port()
    environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    environment |= {"FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
    with ExitStack() as stack:
        out = stack.enter_context(connect_proxy.serve({NAME: public}))
        proxy = FleetProxy("127.0.0.1", public, superlink, certificates, tmp_path / "nginx" / "own")
        stack.enter_context(process(proxy_command(proxy), environment, tmp_path / "nginx-home"))
        tls = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.crt"]
        tls = [word if word.startswith("--") else str(certificates / word) for word in tls]
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(superlink), *tls]
        said = stack.enter_context(process([*command, "--enable-supernode-auth"], environment, tmp_path / "superlink"))
        wait(lambda: "Uvicorn running" in said.read_text(), "the SuperLink")

        flwr = Flower(tmp_path / "cli", environment, superlink, authority)
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)], check=True)
        flwr("supernode", "register", f"{key}.pub", "here", "--name", "institution")
        way_out = f"http://{quote(connect_proxy.PASSWORD, safe=':')}@127.0.0.1:{out.port}"
        proxied = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), way_out)
        command = ["flower-supernode", "--superlink", f"{NAME}:{public}", "--root-certificates", str(authority)]
        command += ["--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(free_port())]
        node = stack.enter_context(
            process(command, environment | proxied | past_proxies(environment), tmp_path / "supernode")
        )
        wait(lambda: "SuperNode ID:" in node.read_text(), "the SuperNode")

        answer = tmp_path / "answer.json"
        flwr("run", str(_write_app(tmp_path / "app", answer)), "here")
        wait(answer.is_file, "the answer")
        assert json.loads(answer.read_text()) == {"nodes": 1, "equal": True}
        assert set(out.asked) == {f"CONNECT {NAME}:{public} HTTP/1.1"}, "this machine's own port stays out of it"
        assert out.bytes_out > BYTES
        refusals = (tmp_path / "nginx-home" / "log").read_text()
        assert refusals == "", "all that a SuperNode asks for passes"


class Flower:
    """Flower's command, as the coordinator uses it on its own machine."""

    def __init__(self, home: Path, environment: Mapping[str, str], port: int, authority: Path) -> None:
        home.mkdir()
        self.home, self.environment = home, {**environment, "FLWR_HOME": str(home)}
        connection = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        (home / "config.toml").write_text(f'{connection}root-certificates = "{authority}"\n')

    def __call__(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / "flwr"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _write_app(folder: Path, answer: Path) -> Path:
    """Write an app whose client sends back what it is sent, turned around."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT.format(answer=answer))
    (folder / "echo.py").write_text(APP.format(bytes=BYTES))
    (folder / "LICENSE").write_text("none")
    return folder
