"""A finished run goes on for more rounds: with all that server and clients had, on a new
schedule, in a new folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import SITES, Federation, logged, same_bits
from flwr.app import Message

from fedsense_core.atomic_io import sha256
from fedsense_core.config import Config, resolve
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.schedule import learning_rate

Make = Callable[..., Federation]
SHORT = {"run.rounds": 2, "guidance.ramp": 0.0}
METHODS: dict[str, dict[str, Any]] = {
    "fedsense": {},
    "fedsense-plus": {"preset": "fedsense-plus"},
    "teachers": {
        "preset": "fedema",
        "outer.kind": "nesterov",
        "uplink.codec": "eden",
        "uplink.feedback": True,
        "downlink.codec": "eden",
    },
    "models": {"preset": "fedavg"},
}


def longer(finished: Federation, name: str, rounds: int = 2, **changes: Any) -> Federation:
    """Return the run that goes on from a finished one, with the same sites."""
    done = finished.config.run.rounds
    folder = finished.root / name
    goes_on = {"run.folder": str(folder), "run.continued_from": str(finished.folder.path), "run.rounds_before": done}
    given = finished.changes | goes_on | {"run.rounds": done + rounds}
    given |= {key.replace("__", "."): value for key, value in changes.items()}

    class Longer(Federation):
        @property
        def folder(self) -> Any:
            return type(super().folder)(folder)

    return Longer(finished.root, given, first_node=700)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def restarting(config: Config, step: int) -> float:
    """Return the rate of two schedules of two rounds, one after the other."""
    half = 2 * config.train.local_steps
    return learning_rate(config.model_copy(update={"run": config.run.model_copy(update={"rounds": 2})}), step % half)


@pytest.mark.parametrize(
    "method",
    ["fedsense", *(pytest.param(one, marks=pytest.mark.slow) for one in ("teachers", "fedsense-plus", "models"))],
)
def test_run_that_goes_on_equals_one_whose_schedule_restarts(
    federation: Make, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = federation("finished", changes=SHORT | METHODS[method])
    finished.run()
    before = contents(finished.folder.path)
    second = longer(finished, "second")
    second.run()
    assert contents(finished.folder.path) == before, "the finished run stays as it is"
    for module in ("client_app.training", "client_app.drift", "server_app.round", "server_app.distillation.distiller"):
        monkeypatch.setattr(f"{module}.learning_rate", restarting)
    whole = federation("whole", changes=SHORT | METHODS[method] | {"run.rounds": 4})
    whole.run()
    assert [line["round"] for line in second.lines()] == [1, 2, 3, 4]
    assert [line["learning_rate"] for line in second.lines()] == [line["learning_rate"] for line in whole.lines()]
    assert all(not line["rejected"] and not line["notes"] for line in second.lines())
    assert [line["bytes_down"] for line in second.lines()] == [line["bytes_down"] for line in whole.lines()]
    assert same_bits(second.state().weights, whole.state().weights)


def _die(task: Message, reply: Message | None) -> Message:
    raise KeyboardInterrupt


def test_killed_run_that_goes_on_continues_to_the_same_bits(federation: Make) -> None:
    finished = federation(changes=SHORT)
    finished.run()
    whole = longer(finished, "whole")
    whole.run()
    killed = longer(finished, "killed")
    for node in [(3, killed.node("gamma")), (4, killed.node("beta"))]:
        again = longer(finished, "killed")
        again.grid.faults = {node: _die}
        with pytest.raises(KeyboardInterrupt):
            again.run()
    killed.run()
    assert [line["round"] for line in killed.lines()] == [1, 2, 3, 4]
    assert all(not line["notes"] for line in killed.lines())
    assert same_bits(killed.state().weights, whole.state().weights)


@pytest.mark.slow
def test_institutions_go_on_from_their_own_state_folders_and_more_than_once(federation: Make, tmp_path: Path) -> None:
    def at_home(fed: Federation) -> Federation:
        for context, site in zip(fed.grid.contexts.values(), SITES, strict=True):
            context.node_config = {"site": str(fed.root / "sites" / f"{site}.toml"), "state-dir": str(tmp_path / site)}
        return fed

    finished = at_home(federation(changes=SHORT))
    finished.run()
    first, second = (at_home(longer(finished, name)) for name in ("first", "second"))
    first.run()
    second.run()
    third = at_home(longer(first, "third", rounds=1))
    third.run()
    assert not (finished.folder.path / "clients").exists()
    assert same_bits(first.state().weights, second.state().weights)
    assert [line["round"] for line in third.lines()] == [1, 2, 3, 4, 5]
    for fed in (first, second, third):
        assert all(line["accepted"] == list(SITES) and not line["notes"] for line in fed.lines())


def test_client_that_kept_nothing_is_served_a_snapshot_and_named(federation: Make) -> None:
    finished = federation(changes=SHORT)
    finished.run()
    shutil.rmtree(finished.folder.path / "clients" / "beta")
    second = longer(finished, "second")
    second.run()
    assert all(line["accepted"] == list(SITES) for line in second.lines())
    assert [[one["site"] for one in line["notes"]] for line in second.lines()] == [[], [], ["beta"], []]


def test_log_folder_and_report_say_what_goes_on(federation: Make, caplog: pytest.LogCaptureFixture) -> None:
    finished = federation(changes=SHORT | {"run.report": True})
    finished.run()
    second = longer(finished, "second", run__rounds=3, train__learning_rate=1e-4)
    with logged(caplog):
        second.run()
    sentence = "the learning rate begins a new schedule, warm-up and then a cosine to zero, over rounds 3 to 3"
    assert sentence in caplog.text
    assert sentence in second.folder.continued_file.read_text(encoding="utf-8")
    assert second.folder.read_config()["run"]["continued_from"] == str(finished.folder.path)
    page = second.folder.report_file.read_text(encoding="utf-8")
    assert "3 of 3 rounds" in page
    assert f"rounds 1 to 2 are those of {finished.folder.path}" in page
    assert second.lines()[2]["learning_rate"] == pytest.approx(1e-4)


def test_radius_does_not_rise_again(federation: Make) -> None:
    finished = federation(changes={"run.rounds": 2, "guidance.ramp": 1.0})
    finished.run()
    second = longer(finished, "second")
    second.run()
    assert [line["ramp"] for line in second.lines()] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run__rounds_before": 3}, r"rounds_before = 3, but .* has 2 rounds, and keeps .* rounds 1, 2:"),
        ({"train__local_steps": 3}, r"train\.local_steps = 2 then, 3 now"),
        ({"run__continued_from": "elsewhere"}, "absolute path"),
    ],
)
def test_what_does_not_fit_the_finished_run_is_refused_and_leaves_no_folder(
    federation: Make, changes: dict[str, Any], words: str
) -> None:
    finished = federation(changes=SHORT)
    finished.run()
    second = longer(finished, "second", **changes)
    with pytest.raises((CheckpointError, ConfigError), match=words):
        second.run()
    assert not second.folder.path.exists()


def test_unfinished_run_is_not_gone_on_from(federation: Make) -> None:
    fed = federation(changes=SHORT)
    fed.grid.faults = {(2, fed.node("alpha")): _die}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    with pytest.raises(CheckpointError, match="is not finished: continue it by the command that began it"):
        longer(fed, "second").run()


@pytest.mark.parametrize("given", [{"run.rounds_before": 2}, {"run.continued_from": "/runs/one"}])
def test_half_of_what_goes_on_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"run\.continued_from.*do not go together"):
        resolve(given, {})


def test_no_global_momentum_follows_a_restart_at_once(federation: Make) -> None:
    changes = SHORT | {"preset": "mofedsam"}
    finished = federation(changes=changes)
    finished.run()
    second = longer(finished, "second", rounds=1)
    second.run()
    assert torch.isfinite(second.state().weights).all()
    assert second.lines()[2]["accepted"] == list(SITES)
