"""What status, audit, doctor's findings and leaving say, on made-up folders."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_up_run import round_line
from typer.testing import CliRunner

from fedsense_core.audit import AuditLog
from fedsense_core.errors import ConfigError, FedSenseError
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.folder import write_json
from fedsense_core.tools.cli import app
from fedsense_core.tools.health.findings import Doubt, found, has_failed
from fedsense_core.tools.health.leaving import leave, what_leaving_deletes
from fedsense_core.tools.health.run_state import RunState
from fedsense_core.tools.health.versions import check_flower, check_packages, locked

runner = CliRunner(env={"COLUMNS": "80"})
NOW = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run of eight rounds after its second, which left `aerial` out."""
    run = RunFolder.create(tmp_path / "runs" / "one", {"run": {"rounds": 8}})
    run.append_metrics(round_line(1))
    run.append_metrics(round_line(2, [{"node": "aerial", "reason": "update norm 900 is above 45"}]))
    return run


def write_status(run: RunFolder, phase: str = "training", age_s: float = 1.0, **more: Any) -> None:
    said = {
        "time": (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "phase": phase,
        "round": 3,
        "round_began": (datetime.now(UTC) - timedelta(seconds=100)).isoformat(timespec="seconds"),
        "connected": ["aerial", "landsat", "modis"],
        "asked": ["aerial", "landsat", "modis"],
        "waiting_for": ["modis"],
        "refused": [],
        "least": 2,
    }
    write_json(run.status_file, said | more)


def status(run: RunFolder, *options: str) -> Any:
    return runner.invoke(app, ["status", "coordinator", str(run.path), "--state", str(run.path.parent), *options])


def test_status_names_the_phase_who_is_late_and_each_last_verdict(run: RunFolder) -> None:
    write_status(run)
    result = status(run)
    assert result.exit_code == 1, "no SuperLink answers"
    for words in ("round 3 of 8 · training", "2 answered, waiting for modis", "round 2: counted", "update norm 900"):
        assert words in result.output
    assert max(map(len, result.output.splitlines()[2:])) <= 80
    said = json.loads(status(run, "--json").output)
    assert said["run"]["verdicts"]["aerial"] == {
        "round": 2,
        "counted": False,
        "reason": "update norm 900 is above 45",
    }
    assert said["run"]["bytes_up"] == 130_000 * 5


@pytest.mark.parametrize(
    ("phase", "more", "words"),
    [
        ("stopped", {"reason": "1 client is able to train"}, "1 client is able to train"),
        ("training", {"age_s": 300.0}, "was killed, or its machine was"),
        ("training", {"pid": 2**22 + 1}, "was killed"),
    ],
)
def test_status_tells_a_run_that_does_not_go_on(run: RunFolder, phase: str, more: dict[str, Any], words: str) -> None:
    write_status(run, phase, **more)
    state = RunState.of(run.path)
    assert state.phase in ("stopped", "dead")
    assert words in state.reason
    assert not state.late()


def test_rounds_of_an_institution_are_named_and_how_to_go_on_without_them(run: RunFolder) -> None:
    (run.checkpoints / "round-000002").mkdir()
    result = status(run, "--rounds-of", "aerial")
    assert "aerial counts in 1 round: 1" in result.output
    assert "round 2: left out: update norm 900 is above 45" in result.output
    assert "was there from round 1" in result.output
    result = status(run, "--rounds-of", "nobody")
    assert result.exit_code == 2
    assert "'nobody' was in no round of this run; aerial, landsat, modis was" in result.stderr


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return an institution's folder with a log of three rounds, chips and a key."""
    state = tmp_path / "institution"
    log = AuditLog(state / "audit.jsonl")
    for number in range(1, 4):
        asked = {"round": number, "bytes_down": 5_000, "last": {"round": number - 1, "verdict": "counted"}}
        log.append("asked", {"run": "00ff", **asked})
        frame = {"bytes": 900, "sha256": "ab" * 32}
        log.append("sent", {"run": "00ff", "round": number, "bytes_up": 900, "frame": frame, "channels": {}})
    for name in ("key", "key.pub", "federation.toml", "site.toml"):
        (state / name).write_text("x")
    (state / "alpha" / "chips").mkdir(parents=True)
    (state / "alpha" / "chips" / "pixels").write_bytes(bytes(1000))
    return state


def test_status_of_an_institution_adds_up_what_its_log_says(state: Path) -> None:
    result = runner.invoke(app, ["status", "institution", "--state", str(state)])
    assert result.exit_code == 0
    for words in ("3 tasks, 3 updates sent", "3 counted", "2.70 kB up, 15.0 kB down", "frame abababababab", "unbroken"):
        assert words in " ".join(result.output.split())
    assert max(map(len, result.output.splitlines())) <= 80


def test_audit_verifies_and_shows_what_was_changed_since_a_digest_was_noted(state: Path) -> None:
    noted = json.loads(runner.invoke(app, ["audit", str(state), "--json"]).output)["log"]["digest"]
    log = AuditLog(state / "audit.jsonl")
    log.append("sent", {"round": 4})
    holds = runner.invoke(app, ["audit", str(log.path), "--holds", noted])
    assert holds.exit_code == 0
    assert "line 6 has the digest" in holds.output
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b"900", b"901", 1))
    broken = runner.invoke(app, ["audit", str(state)])
    assert broken.exit_code == 1
    words = " ".join(broken.output.split())
    assert "line 2" in words
    assert "it was changed" in words
    log.path.unlink()
    log.append("sent", {"round": 1})
    renewed = runner.invoke(app, ["audit", str(state), "--holds", noted])
    assert renewed.exit_code == 1
    assert "no line has the digest" in renewed.stderr


def test_leaving_deletes_the_institutions_state_and_keeps_what_it_wrote_and_its_evidence(
    state: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "imagery"
    outside.mkdir()
    (outside / "scene.tif").write_text("pixels")
    (state / "linked").symlink_to(outside)
    planned = what_leaving_deletes(state)
    assert planned.bytes >= 1000
    refused = runner.invoke(app, ["institution", "leave", "--state", str(state)], input="n\n")
    assert refused.exit_code == 1
    assert (state / "key").exists()
    assert runner.invoke(app, ["institution", "leave", "--state", str(state)], input="y\n").exit_code == 0
    assert sorted(path.name for path in state.iterdir()) == ["audit.jsonl", "site.toml"]
    assert (outside / "scene.tif").exists()
    last = list(AuditLog(state / "audit.jsonl").entries())[-1]
    assert (last.event, last.said["deleted"]) == ("left", [path.name for path in planned.deleted])
    leave(state, everything=True)
    assert not state.exists()
    for wrong in (outside, tmp_path / "nowhere"):
        with pytest.raises(FedSenseError, match="is no institution's folder"):
            leave(wrong)


def test_versions_are_told_apart() -> None:
    lock = locked()
    assert check_flower(lock, lock["flwr"])
    with pytest.raises(ConfigError, match="need the same"):
        check_flower(lock, "1.99.0")
    with pytest.raises(Doubt):
        check_flower(lock, lock["flwr"].rpartition(".")[0] + ".99")
    with pytest.raises(Doubt, match=r"numpy .* \(not 0\.1\)"):
        check_packages({"numpy": "0.1"})
    with pytest.raises(ConfigError, match="no-such-package is not installed"):
        check_packages({"no-such-package": "1"}, {"no-such-package"})


def test_finding_is_of_the_level_of_what_is_raised() -> None:
    def doubting() -> str:
        raise Doubt("soon")

    def failing() -> str:
        raise OSError("no")

    findings = [found("a", lambda: "fine"), found("b", doubting)]
    assert [finding.level for finding in findings] == ["ok", "warning"]
    assert not has_failed(findings)
    assert has_failed([*findings, found("c", failing)])
