"""status.json says what a run does while it does it, and why it does not go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import Federation
from flwr.app import Message

from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder.folder import read_json
from fedsense_core.tools.health.run_state import RunState
from server_app.callbacks import status_file


def test_status_names_who_is_waited_for_and_how_a_run_ended(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_file, "LOOK_S", 0.01)
    fed = federation(changes={"run.rounds": 1})
    seen: dict[str, Any] = {}

    def look(task: Message, reply: Message | None) -> Message | None:
        deadline = time.monotonic() + 20
        while seen.get("accepted") != ["alpha"] and time.monotonic() < deadline:
            seen.update(read_json(fed.folder.status_file) or {})
            time.sleep(0.01)
        assert RunState.of(fed.folder.path).late().keys() == {"beta", "gamma"}
        return reply

    fed.grid.faults[1, fed.node("beta")] = look
    fed.run()
    assert (seen["phase"], seen["round"], seen["waiting_for"]) == ("training", 1, ["beta", "gamma"])
    assert seen["connected"] == seen["asked"] == ["alpha", "beta", "gamma"]
    assert RunState.of(fed.folder.path).phase == "finished"
    lonely = federation("lonely", changes={"federation.min_clients": 4})
    with pytest.raises(FedSenseError):
        lonely.run()
    state = RunState.of(lonely.folder.path)
    assert (state.phase, state.now["connected"]) == ("stopped", ["alpha", "beta", "gamma"])
    assert "federation.min_clients asks for 4" in state.reason


def test_file_that_cannot_be_written_does_not_hurt_the_run(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(status_file, "write_json", full)
    fed = federation(changes={"run.rounds": 1})
    assert fed.run().is_finished
    assert not fed.folder.status_file.exists()
    assert not list(fed.root.rglob("audit.jsonl")), "a simulation keeps no audit log"
