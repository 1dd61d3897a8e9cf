"""An institution's SuperNode runs what a signer it trusts has signed, and nothing else; no hub is
asked. Real processes; the apps are FedSense by name and a few lines by content, so that what was
executed is seen by the files that it leaves."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from flwr.common.constant import NOOP_FLWR_AID, ErrorCode
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab as FabMessage
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories

from fedsense_core.tools.app_bundle.building import build
from fedsense_core.tools.app_bundle.bundle import APP_ID, Bundle
from fedsense_core.tools.app_bundle.signatures import Signatures, add_signature, sign
from fedsense_core.tools.app_bundle.signer_keys import make_key, read_private_key
from fedsense_core.tools.app_bundle.stored_runs import start_stored_run, store_signed_bundle
from fedsense_core.tools.app_bundle.trusted_signers import distrust, trust
from fedsense_core.tools.runner.app_folder import project_file
from fedsense_core.tools.runner.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SERVER = """
import json, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes], timeout=60)
    codes = [reply.error.code if reply.has_error() else 0 for reply in replies]
    folder = Path(context.run_config["run.folder"])
    (folder / "writing").write_text(json.dumps(codes))
    (folder / "writing").rename(folder / "codes.json")
"""
REFUSED = [ErrorCode.INVALID_FAB]
CLIENT = """
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

Path({marker!r}).touch()
app = ClientApp()

@app.query()
def answer(message, context):
    return Message(RecordDict(), reply_to=message)
"""


class Hub(BaseHTTPRequestHandler):
    """Stands where Flower's hub, and any other machine, would be."""

    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_GET = do_CONNECT = do_POST

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Federation:
    """A SuperLink and a SuperNode that trusts alice and bob, in folders of their own."""

    def __init__(self, root: Path, environment: Mapping[str, str], wait: Callable[..., None]) -> None:
        self.root, self.environment, self.wait = root, dict(environment), wait
        self.address = f"127.0.0.1:{free_port()}"
        self.database, self.trusted = root / "superlink.db", root / "trusted.yaml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("alice", "bob"):
            trust(self.trusted, name, make_key(root / name))

    def start_superlink(self) -> None:
        host, port = self.address.split(":")
        command = ["flower-superlink", "--insecure", "--host", host, "--port", port, "--database", str(self.database)]
        self._keep_running("superlink", [*command, "--disable-runtime-dependency-installation"])
        self.wait(self._is_up, "the SuperLink")

    def start_supernode(self) -> None:
        command = ["flower-supernode", "--insecure", "--superlink", self.address, "--host", "127.0.0.1"]
        command += ["--port", str(free_port()), "--trusted-entities", str(self.trusted)]
        self._keep_running("supernode", command)

    def end(self, name: str) -> None:
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(self.address, True, None, [])

    def folder(self, name: str) -> Path:
        path = self.root / "runs" / name
        path.mkdir(parents=True)
        return path

    def codes(self, folder: Path) -> list[int]:
        """Return the error codes of a run's replies; 0 where the ClientApp answered."""
        self.wait((folder / "codes.json").exists, f"the end of {folder.name}", 90)
        return list(json.loads((folder / "codes.json").read_text()))

    def executed(self) -> set[str]:
        """Return the bundles whose client code was imported by anybody since the last call."""
        markers = list((self.root / "executed").iterdir())
        for marker in markers:
            marker.unlink()
        return {marker.name for marker in markers}

    def bundle(self, name: str) -> Bundle:
        """Return an app that leaves a file of this name when it is imported at an institution."""
        root, marker = self.root / "apps" / name, self.root / "executed" / name
        marker.parent.mkdir(exist_ok=True)
        files = {
            **{file: project_file(file).read_text() for file in ("pyproject.toml", "flower.toml", "LICENSE")},
            **{f"{package}/__init__.py": "" for package in ("server_app", "client_app", "fedsense_core")},
            "server_app/app.py": SERVER,
            "client_app/app.py": CLIENT.format(marker=str(marker)),
        }
        for file, text in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        return build(root).bundle

    def sign(self, bundle: Bundle, name: str) -> Signatures:
        path = self.root / f"{bundle.digest[:8]}.signatures.json"
        return add_signature(bundle, path, name, sign(bundle, read_private_key(self.root / name)))

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _keep_running(self, name: str, command: list[str]) -> None:
        home = self.root / f"{name}-home"
        home.mkdir(exist_ok=True)
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=home,
                env=self.environment | {"FLWR_HOME": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a machine that counts what it is asked, and the count."""
    handler = type("Asked", (Hub,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


@pytest.fixture
def federation(
    tmp_path: Path, asked: tuple[str, list[str]], environment: dict[str, str], wait: Callable[..., None]
) -> Iterator[Federation]:
    hub, _ = asked
    environment |= {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPERGRID_API_URL": hub,
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), hub),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
    }
    federation = Federation(tmp_path, environment, wait)
    try:
        federation.start_superlink()
        federation.start_supernode()
        yield federation
    finally:
        for name in reversed(list(federation.processes)):
            federation.end(name)


def test_only_the_signed_bundle_is_executed_and_no_hub_is_asked(
    federation: Federation, asked: tuple[str, list[str]]
) -> None:
    signed, altered, unsigned = (federation.bundle(name) for name in ("signed", "altered", "unsigned"))
    signatures = federation.sign(signed, "alice")
    folders = {name: federation.folder(name) for name in ("signed", "altered", "unsigned")}
    store_signed_bundle(federation.database, signed, signatures)
    with closing(sqlite3.connect(federation.database, timeout=10)) as database, database:
        database.execute("UPDATE federation_app SET updated_at = datetime(updated_at, '-1 hour')")
    with federation.control() as control:
        start_stored_run(control, signed.digest, {"run.folder": str(folders["signed"])})
        # Whoever holds the coordinator can put what they want into its state, with a true signature
        # of something else.
        _, states = get_objectstore_linkstate_factories(str(federation.database), get_federation_manager())
        forged = Fab(altered.digest, altered.content, signatures.verifications())
        states.state().store_app(forged, NOOP_FEDERATION_ID, APP_ID, TaskType.SERVER_APP, NOOP_FLWR_AID)
        start_stored_run(control, altered.digest, {"run.folder": str(folders["altered"])})
        # As `flwr run` does it.
        control.StartRun(
            StartRunRequest(
                fab=FabMessage(hash_str=unsigned.digest, content=unsigned.content),
                override_config=user_config_to_proto({"run.folder": str(folders["unsigned"])}),
            )
        )
    assert {name: federation.codes(folder) for name, folder in folders.items()} == {
        "signed": [0],
        "altered": REFUSED,
        "unsigned": REFUSED,
    }
    assert federation.executed() == {"signed"}
    assert asked[1] == []
    with federation.control() as control, pytest.raises(httpx.HTTPStatusError):
        control.StartRun(StartRunRequest(app_spec=APP_ID))
    assert asked[1] == ["/hub/fetch-fab"], "by name alone the hub is asked, and the count sees it"


def test_bundle_of_a_signer_who_was_taken_out_is_executed_no_more_after_the_restart(
    federation: Federation, asked: tuple[str, list[str]]
) -> None:
    bundle = federation.bundle("signed")
    signatures = federation.sign(bundle, "alice")
    for name, codes in (("before", [0]), ("after", REFUSED)):
        folder = federation.folder(name)
        store_signed_bundle(federation.database, bundle, signatures)
        with federation.control() as control:
            start_stored_run(control, bundle.digest, {"run.folder": str(folder)})
        assert federation.codes(folder) == codes
        assert federation.executed() == ({"signed"} if name == "before" else set())
        if name == "before":
            distrust(federation.trusted, "alice")
            federation.end("supernode")
            federation.start_supernode()
    folder = federation.folder("signed by another")
    store_signed_bundle(federation.database, bundle, federation.sign(bundle, "bob"))
    with federation.control() as control:
        start_stored_run(control, bundle.digest, {"run.folder": str(folder)})
    assert federation.codes(folder) == [0]
    assert asked[1] == []
