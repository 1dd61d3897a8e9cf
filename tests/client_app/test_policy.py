"""An institution's policy within a federation: what it refuses is answered, and cannot be
skipped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import Federation, logged, tiny
from flwr.app import Context, Message, MessageType, RecordDict

import client_app.round
from client_app.allowance import Allowance, policy_of
from client_app.app import app
from client_app.identity import Identity
from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError, PolicyError, SiteError
from fedsense_core.policy import Policy, footprint
from fedsense_core.policy.memory import limited_memory
from fedsense_core.protocol.messages import TrainReply, TrainTask

Make = Callable[..., Federation]


def write_policy(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


@dataclass
class Captured:
    """An honest task of round 1 for beta, and the context in which beta answers it."""

    fed: Federation
    task: TrainTask
    context: Context

    def answer(self, **settings: Any) -> TrainReply:
        """Send the same task with other settings, whose digest is forged to fit: what the client
        then answers."""
        run_config = self.fed.run_config | {key.replace("__", "."): value for key, value in settings.items()}
        try:
            task = replace(self.task, config_digest=resolve(run_config, {}).digest)
        except ConfigError:
            task = self.task  # of no settings at all
        context = Context(1, self.context.node_id, dict(self.context.node_config), RecordDict(), run_config)
        return TrainReply.from_message(app(self.message(task.to_records()), context))

    def message(self, content: RecordDict) -> Message:
        return Message(content, self.context.node_id, MessageType.TRAIN, group_id="1")


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    fed, tasks = Federation(tmp_path_factory.mktemp("fed"), {"run.rounds": 1}), []

    def see(task: Message, reply: Message | None) -> Message | None:
        tasks.append(TrainTask.from_records(task.content))
        return reply

    fed.grid.faults = {(1, fed.node("beta")): see}
    fed.run()
    return Captured(fed, tasks[0], fed.grid.contexts[fed.node("beta")])


def test_refused_run_names_site_and_reason_on_both_sides_and_cuts_no_chip(
    federation: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fed = federation(changes={"run.rounds": 1, "federation.min_clients": 2})
    policy = write_policy(tmp_path, "[limits]\nlocal_steps = 1\n[required]\nclients = 3\n")
    fed.grid.contexts[fed.node("beta")].node_config["policy"] = str(policy)
    with logged(caplog):
        fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == ["alpha", "gamma"]
    ((beta, reason),) = [(one["node"], one["reason"]) for one in line["rejected"]]
    assert beta == "beta"
    assert reason == (
        "its policy does not allow this run: train.local_steps = 2, at most 1 are allowed (limits.local_steps); "
        "federation.quorum = 1, at least 3 are required (required.clients)"
    )
    said = [text.partition(":")[0] for text in dict.fromkeys(caplog.messages) if reason in text]
    assert said == [
        "site beta cannot take part",  # the institution's log
        f"beta (node {fed.node('beta')}) cannot take part",  # the coordinator's
    ]
    assert sorted(path.name for path in (fed.folder.path / "clients").iterdir()) == ["alpha", "gamma"]


def test_task_with_forged_settings_is_refused_before_anything_is_built_or_read(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured.context.node_config["policy"] = str(write_policy(tmp_path, "[limits]\nlocal_steps = 5\n"))
    for module, work in (
        (client_app.round, "build_model"),
        (client_app.round, "ClientRound"),
        (footprint, "build_model"),
    ):
        monkeypatch.setattr(module, work, lambda *_: pytest.fail("something was built"))
    monkeypatch.setattr(Identity, "open", lambda *_: pytest.fail("imagery was opened"))
    reply = captured.answer(train__local_steps=10_000)
    assert (reply.site, reply.status, reply.frame) == ("beta", "refused", None)
    assert "train.local_steps = 10000, at most 5 are allowed" in reply.reason
    assert (
        "train.local_steps = 100000000: Input should be less than" in captured.answer(train__local_steps=10**8).reason
    )
    # What a task says beside the settings changes nothing of it.
    for changes in ({"round": 0}, {"clients": 10**6}, {"acknowledged": -1}):
        forged = replace(captured, task=replace(captured.task, **changes))
        assert "at most 5 are allowed" in forged.answer(train__local_steps=6).reason
    broken = captured.task.to_records()
    broken.config_records["task"]["round"] = "policy = none"
    reply = TrainReply.from_message(app(captured.message(broken), captured.context))
    assert (reply.status, reply.reason) == ("refused", "this is no task: round is 'policy = none', not an integer")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("[limits]\nparameters = 1000", r"the model has \d+ parameters, at most 1000 are allowed"),
        ("[limits]\nmemory_gb = 0.001", r"a round would take at least 0\.\d+ GB of memory, 0\.001 GB are allowed"),
        ("[limits]\ndisk_gb = 0.001", r"kept between rounds would take 0\.\d+ GB of disk, 0\.001 GB are allowed"),
        ("[limits]\nmemory_gb = 0.1", r"stopped at \d\.\d GB of memory, its policy allows 0\.1 GB"),
        ("[required]\nclients = 4", r"the round asks 3 clients, at least 4 are required"),
        ("[limits]\nminute = 4", r"policy\.toml: unknown key 'limits\.minute'\. Did you mean 'minutes'"),
    ],
)
def test_round_that_takes_too_much_is_answered_with_the_reason(
    captured: Captured, tmp_path: Path, policy: str, reason: str
) -> None:
    captured.context.node_config["policy"] = str(write_policy(tmp_path, policy))
    reply = captured.answer(federation__quorum=4)
    assert reply.status == "refused"
    assert re.search(reason, reply.reason), reply.reason
    assert str(tmp_path) not in reply.reason, "a coordinator need not know an institution's disks"


def test_minutes_of_a_round_stop_training_within_seconds(captured: Captured, tmp_path: Path) -> None:
    policy = "[limits]\nlocal_steps = 100000\nminutes = 0.01\n"
    captured.context.node_config["policy"] = str(write_policy(tmp_path, policy))
    began = time.monotonic()
    reply = captured.answer(train__local_steps=100_000)
    assert reply.reason == "stopped after 0.01 minutes, which is all that its policy gives a round (limits.minutes)"
    assert 0.6 < time.monotonic() - began < 5


def test_cutting_chips_stops_too_and_goes_on_at_the_next_try(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    site = tmp_path / "sites" / "alpha.toml"
    for number in range(2):
        (tmp_path / "sites" / "alpha" / f"more{number}.tif").write_bytes(
            (tmp_path / "sites" / "alpha" / "scene.tif").read_bytes()
        )
    now = iter([0.0, 1.0, 1.0, 100.0])
    stopped = Allowance(minutes=1.0, what="this", clock=lambda: next(now))
    identity = Identity("alpha", (site,), tmp_path / "state")
    with pytest.raises(PolicyError, match="stopped after 1 minutes, which is all that its policy gives this"):
        identity.under(stopped).open(fed.config)
    cut: list[int] = []
    going = Allowance()
    going.check = lambda: cut.append(1)  # type: ignore[method-assign]
    (chips,) = identity.under(going).open(fed.config)[0]
    assert len(chips) == 27
    assert len(cut) == 1, "the two scenes that were cut are not cut again"


def test_policy_is_the_institutions_own_file_and_a_simulation_has_none(tmp_path: Path) -> None:
    def found(**node: str) -> Policy | None:
        return policy_of(Context(1, 1, dict(node), RecordDict(), {"policy": "nonsense", "limits.minutes": 10**9}))

    state, site = str(tmp_path), "site.toml"
    assert found() is None
    assert found(site=site, **{"state-dir": state}) == Policy()
    write_policy(tmp_path, "[limits]\nminutes = 3\n")
    assert found(site=site, **{"state-dir": state}).limits.minutes == 3  # type: ignore[union-attr]
    (tmp_path / "policy.toml").rename(tmp_path / "other.toml")
    assert found(site=site, policy=str(tmp_path / "other.toml")).limits.minutes == 3  # type: ignore[union-attr]
    (tmp_path / "policy.toml").symlink_to(tmp_path / "gone.toml")
    for node in ({"state-dir": state}, {"policy": str(tmp_path / "gone.toml")}):
        with pytest.raises(PolicyError, match=r"cannot be read \(No such file or directory\), so nothing is allowed"):
            found(site=site, **node)


def test_statistics_stay_where_the_policy_keeps_them(tmp_path: Path) -> None:
    Federation(tmp_path)
    site = tmp_path / "sites" / "alpha.toml"
    site.write_text("share_statistics = true\n" + site.read_text())
    config = tiny(data__share_statistics=True, federation__sites=str(tmp_path / "sites"))
    identity = Identity("alpha", (site,), tmp_path / "state")
    assert identity.statistics(config).to_bytes() != b""
    silent = Allowance(Policy.model_validate({"sharing": {"statistics": False}}))
    assert identity.under(silent).statistics(config).to_bytes() == b""


def test_state_of_earlier_runs_counts_as_disk(tmp_path: Path) -> None:
    small, more = Allowance(disk=1000), Allowance(disk=1000, slot=200)
    (tmp_path / "chips").mkdir()
    (tmp_path / "chips" / "old.npy").write_bytes(b"x" * 900)
    small.check_disk(tmp_path)
    with pytest.raises(PolicyError, match=r"would take 1\.1e-06 GB of disk, its policy allows 1e-06 GB"):
        more.check_disk(tmp_path)


def test_kernel_refuses_one_step_too_large_and_the_limit_goes_with_the_work() -> None:
    allows = r"needed more than the 2\.0 GB of memory that its policy allows"
    with pytest.raises(PolicyError, match=allows), limited_memory(2 * 10**9):
        torch.empty(10**10)
    assert torch.empty(10**9).numel() == 10**9
    with pytest.raises(RuntimeError, match="something else"), limited_memory(10**9):
        raise RuntimeError("something else")
    with pytest.raises(SiteError), limited_memory(0):
        raise SiteError("as it was")
