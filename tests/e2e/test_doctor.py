"""The doctor at a real SuperLink: what it tells of the connection and of the key, without a
SuperNode being taken for connected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from federation import write_site
from typer.testing import CliRunner

from fedsense_core.tools.cli import app
from fedsense_core.tools.deployment.control import connect
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.keeping import Kept, port_answers
from fedsense_core.tools.deployment.node_keys import read_public_key
from fedsense_core.tools.deployment.parts import coordinator_parts
from fedsense_core.tools.runner.processes import free_port

pytestmark = pytest.mark.e2e
runner = CliRunner()


def call(*arguments: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.fixture
def coordinator(tmp_path: Path, wait: Callable[..., None]) -> Iterator[CoordinatorFolder]:
    """Return a coordinator whose SuperLink alone runs."""
    folder, port = CoordinatorFolder(tmp_path / "coordinator"), free_port()
    options = ["--address", f"127.0.0.1:{port}", "--port", str(port)]
    call("coordinator", "init", *options, "--state", str(folder.path))
    kept = Kept(coordinator_parts(folder, "superlink")[0], lambda line: None)
    kept.start()
    try:
        wait(lambda: port_answers(port), "the SuperLink")
        yield folder
    finally:
        kept.end()


def findings(state: Path) -> dict[str, Mapping[str, str]]:
    result = runner.invoke(app, ["doctor", "institution", "--no-dry-step", "--json", "--state", str(state)])
    assert result.exit_code in (0, 1), result.output
    return {one["subject"]: one for one in json.loads(result.stdout)}


def test_doctor_tells_a_key_that_was_not_admitted_and_connects_nobody(
    coordinator: CoordinatorFolder, tmp_path: Path
) -> None:
    state, site = tmp_path / "institution", write_site(tmp_path, "alpha", 0)
    invitation = tmp_path / "federation.toml"
    call("coordinator", "invitation", "--out", str(invitation), "--state", str(coordinator.path))
    call("institution", "join", str(invitation), "--site", str(site), "--state", str(state))
    before = findings(state)
    assert before["port"]["level"] == before["certificate shown"]["level"] == "ok"
    assert before["key admitted"]["level"] == "failure"
    assert "`fedsense coordinator admit NAME key.pub`" in before["key admitted"]["said"]
    with connect(coordinator) as control:
        control.admit("alpha", read_public_key(state / "key.pub"))
        after = findings(state)
        (member,) = control.members()
    assert after["key admitted"]["level"] == "ok"
    assert member.status == "registered", "nobody is taken for connected"
    assert after["exposed"]["level"] == "warning", "the SuperLink itself is on loopback, without a proxy"
    assert after["policy"]["level"] == "warning"
    (state / "key").chmod(0o644)
    assert "has mode 0644" in findings(state)["key"]["said"]
