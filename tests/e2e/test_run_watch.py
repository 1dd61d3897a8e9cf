"""A run that was stopped stops its clients, with Flower's own processes at the pinned version."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fedsense_core.policy.work_folder import Work, started_at, works
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.runner.processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

APP = Path(__file__).parents[2]
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-sha384")


class OneInstitution:
    """A SuperLink with TLS and keys, one SuperNode, and its watcher."""

    def __init__(self, root: Path, site: Path, environment: Mapping[str, str], wait: Callable[..., None]) -> None:
        self.root, self.wait, self.state = root, wait, root / "state"
        self.superlink = f"127.0.0.1:{free_port()}"
        self.environment = dict(environment) | {
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_HOME": str(root / "cli"),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        for folder in ("cli", "superlink", "supernode", "state"):
            (root / folder).mkdir()
        self._certify()
        (root / "cli" / "config.toml").write_text(
            f'[superlink.here]\naddress = "{self.superlink}"\nroot-certificates = "{root}/ca.crt"\n'
        )
        self._serve(site)

    def call(self, *command: str) -> str:
        """Run a command to its end and return what it said."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_run(self, settings: Mapping[str, object]) -> str:
        """Start a run and return its id."""
        pairs = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
        (self.root / "run.toml").write_text("".join(pairs))
        said = self.call("flwr", "run", str(APP), "here", "--run-config", str(self.root / "run.toml"))
        found = re.search(r"started run (\d+)", said)
        assert found, said
        return found[1]

    def work(self, doing: str) -> list[Work]:
        """Return what the ClientApp of a run says that it does."""
        return [work for work in works(self.state).values() if work.doing == doing]

    def end(self) -> None:
        """End everything."""
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _certify(self) -> None:
        self.call("openssl", "req", "-x509", *EC_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")
        self.call("openssl", "req", *EC_KEY, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=coordinator")
        (self.root / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-sha384")
        self.call("openssl", "x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
        self.call("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", "key")

    def _serve(self, site: Path) -> None:
        host, port = self.superlink.split(":")
        certificates = ("--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.crt")
        self._keep(
            "superlink", "flower-superlink", "--host", host, "--port", port, "--enable-supernode-auth", *certificates
        )
        self.wait(lambda: "Uvicorn running" in self.log("superlink"), "the SuperLink")
        self.call("flwr", "supernode", "register", "key.pub", "here", "--name", "alpha")
        node = f'site="{site}" state-dir="{self.state}"'
        own = ("--host", "127.0.0.1", "--port", str(free_port()), "--node-config", node)
        key = ("--root-certificates", "ca.crt", "--auth-supernode-private-key", "key")
        self._keep("supernode", "flower-supernode", "--superlink", self.superlink, *key, *own)
        watch = "fedsense_core.tools.deployment.run_watch"
        self._keep("watch", sys.executable, "-m", watch, self.superlink, "ca.crt", "key", str(self.state))

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        return (self.root / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _keep(self, name: str, *command: str) -> None:
        home = self.root / name if (self.root / name).is_dir() else self.root / "cli"
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=self.environment | {"FLWR_HOME": str(home)},
                    cwd=self.root,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )


@pytest.fixture
def institution(
    tmp_path: Path, site_files: Path, environment: dict[str, str], wait: Callable[..., None]
) -> Iterator[OneInstitution]:
    root = tmp_path / "deployment"
    root.mkdir()
    made: OneInstitution | None = None
    try:
        made = OneInstitution(root, site_files / "alpha.toml", environment, wait)
        yield made
    finally:
        if made:
            made.end()


def test_stopped_run_stops_its_client_within_a_minute_and_the_next_run_trains(
    institution: OneInstitution, settings: Mapping[str, object]
) -> None:
    (institution.state / "policy.toml").write_text("[limits]\nlocal_steps = 100000\n")
    endless = institution.start_run(
        {**settings, "train.local_steps": 100_000, "run.folder": str(institution.root / "a")}
    )
    institution.wait(lambda: institution.work("round 1"), "round 1")
    (work,) = institution.work("round 1")
    time.sleep(5)
    assert started_at(work.pid) == work.started, "it trains"
    began = time.monotonic()
    institution.call("flwr", "stop", endless, "here")
    institution.wait(lambda: started_at(work.pid) != work.started, "the end of the ClientApp", 60)
    print(f"the ClientApp was gone {time.monotonic() - began:.0f} s after the stop")
    assert "alpha: round 1 is called off: its run has ended" in institution.log("watch")
    assert "its policy" not in institution.log("watch")
    institution.start_run({**settings, "run.rounds": 1, "run.folder": str(institution.root / "b")})
    institution.wait(lambda: RunFolder(institution.root / "b").is_finished, "the next run", 600)
    assert [line["accepted"] for line in RunFolder(institution.root / "b").read_metrics()[1:]] == [["alpha"]]
    assert works(institution.state) == {}
