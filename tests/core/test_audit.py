"""The audit log: whatever is changed in it is found, and a writer that is killed loses one line at
most."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsense_core.audit import AuditError, AuditLog


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "state" / "audit.jsonl")
    for number in range(1, 6):
        log.append("sent", {"round": number, "loss": float("nan"), "note": "x" * 5_000})
    return log


def test_any_change_removal_insertion_or_exchange_of_lines_is_found_at_its_line(log: AuditLog) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    forged = lines[2].replace(b'"round":3', b'"round":9')
    cases = {
        "line 3": [[*lines[:2], forged, *lines[3:]], [*lines[:2], *lines[3:]], [*lines[:2], b"{}\n", *lines[2:]]],
        "line 2": [[lines[0], lines[2], lines[1], *lines[3:]], [lines[0], *lines]],
        "line 1": [lines[1:], [b"\n", *lines]],
    }
    for where, contents in cases.items():
        for content in contents:
            log.path.write_bytes(b"".join(content))
            verdict = log.verify()
            assert f", {where}: " in verdict.problem
            assert verdict.entries == int(where[-1]) - 1
    for position in range(0, sum(map(len, lines)), 97):
        content = bytearray(b"".join(lines))
        content[position] ^= 1
        log.path.write_bytes(content)
        verdict = log.verify()
        assert verdict.problem or verdict.torn or verdict.entries < 5


def test_whole_log_holds_and_each_digest_stays_what_it_was(log: AuditLog) -> None:
    before = log.verify()
    assert (before.entries, before.problem, before.torn) == (5, "", 0)
    log.append("sent", {"round": 6})
    entries = list(log.entries())
    assert entries[4].digest == before.digest
    assert [entry.said.get("round") for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0].said["loss"] == "nan"
    assert len(entries[0].said["note"]) < 5_000, "another party's words are cut"
    assert log.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kept", [1, 40, 200])
def test_torn_last_line_is_cut_off_and_named_by_the_next_writer(log: AuditLog, kept: int) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole.splitlines()[-1][:kept])
    assert (log.verify().torn, log.verify().entries) == (kept, 5)
    log.append("sent", {"round": 6})
    assert log.path.read_bytes().startswith(whole)
    assert [(entry.event, entry.said.get("bytes")) for entry in log.entries()][5:] == [("torn", kept), ("sent", None)]
    assert not log.verify().problem


def test_writers_that_are_killed_at_any_moment_leave_a_log_that_goes_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    writer = (
        "import sys; from pathlib import Path; from fedsense_core.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "while True: log.append('sent', {'text': 'y' * 1000})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", writer, str(log.path)]) for _ in range(2)]
    try:
        while not (log.path.exists() and log.path.stat().st_size > 100_000):
            assert all(one.poll() is None for one in writers)
    finally:
        for one in writers:
            one.kill()
            one.wait()
    log.append("sent", {})
    verdict = log.verify()
    assert not verdict.problem
    assert not verdict.torn
    assert verdict.entries > 60


def test_damaged_last_line_is_never_built_upon(log: AuditLog) -> None:
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b'"round":5', b'"round":7'))
    with pytest.raises(AuditError, match="its last line: it does not have the digest at its end"):
        log.append("sent", {"round": 6})
    log.path.write_bytes(content[:-40] + b"\n")
    with pytest.raises(AuditError, match="it ends with no digest"):
        log.append("sent", {"round": 6})


def test_full_disk_leaves_the_log_as_it_was(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    content, write, space = log.path.read_bytes(), os.write, [30]

    def little_space(descriptor: int, data: memoryview) -> int:
        if not space:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data[: space.pop()]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", little_space)
        with pytest.raises(AuditError, match=r"No space left.*nothing leaves"):
            log.append("sent", {"round": 6})
    assert log.path.read_bytes() == content
    assert json.loads(content.splitlines()[0])["line"] == 1


def test_log_is_no_link_to_another_file(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious\n")
    log.path.unlink()
    log.path.symlink_to(tmp_path / "other")
    with pytest.raises(AuditError, match="cannot be written"):
        log.append("sent", {})
    assert (tmp_path / "other").read_text() == "precious\n"
