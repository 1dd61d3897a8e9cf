"""Programs are started in order, started again when they die, and ended with whoever keeps them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsense_core.tools.deployment import keeping
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.keeping import Patience, how_it_ended, keep_running
from fedsense_core.tools.deployment.parts import Part
from fedsense_core.tools.runner.processes import free_port

pytestmark = pytest.mark.e2e
LISTENS = (
    "import signal, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('over', flush=True))); print('up', flush=True); "
    "time.sleep(100)"
)


def shell(name: str, script: str, home: Path) -> Part:
    return Part(name, ("/bin/sh", "-c", script), home / name)


def wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_pauses_grow_from_death_to_death_until_a_program_was_up_for_long() -> None:
    patience, now, pauses = Patience(0.0), 0.0, []
    while (pause := patience.pause_s(now, now + 2.0)) is not None:
        pauses.append(pause)
        now += 2.0 + pause
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30], "Flower refuses a SuperNode for up to a minute after another's death"
    assert patience.pause_s(now, now + 3600.0) == 1


def test_program_that_cannot_stay_up_ends_the_command_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "GIVE_UP_S", 0.0)
    said: list[str] = []
    well = shell("well", "exec sleep 100", tmp_path)
    ill = shell("ill", "echo; echo 'Exit Code: 305'; echo 'No such key.'; echo; echo 'For more'; exit 1", tmp_path)
    with pytest.raises(DeploymentError, match=r"ill ended \(status 1\): No such key\..* did not stay up"):
        keep_running([well, ill], said.append)
    assert "ill | No such key." in said
    known = Part("ill", ill.command, ill.home, meanings={"305": "the key was not admitted"})
    with pytest.raises(DeploymentError, match="ill ended: the key was not admitted"):
        keep_running([known], said.append)


def test_programs_start_in_order_and_end_at_a_signal_in_reverse_order(tmp_path: Path) -> None:
    port, said = free_port(), []
    first = Part("first", (sys.executable, "-c", LISTENS, str(port)), tmp_path / "first", port)
    second = shell("second", "trap 'echo over; exit 0' TERM; echo started; while :; do sleep 0.1; done", tmp_path)

    def say(line: str) -> None:
        said.append(line)
        if line == "second | started":
            os.kill(os.getpid(), signal.SIGTERM)

    assert keep_running([first, second], say) == 0
    assert [line for line in said if "Terminated" not in line] == [
        *("first | up", "second | started"),
        *("second | over", "first | over"),
    ]
    assert not keeping.port_answers(port)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(DeploymentError, match=f"port {port} .* is in use"):
        keep_running([first, second], say)


def test_killed_program_comes_back_and_a_killed_command_leaves_none(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from fedsense_core.tools.deployment.keeping import keep_running; "
        "from fedsense_core.tools.deployment.parts import Part; "
        f"command = ('/bin/sh', '-c', 'echo $$ >> pids; exec sleep 100'); "
        f"keep_running([Part('one', command, Path({str(tmp_path)!r}))], print)"
    )
    keeper = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    file = tmp_path / "pids"
    wait(lambda: file.exists() and file.read_text().endswith("\n"))
    os.kill(int(file.read_text()), signal.SIGKILL)
    wait(lambda: file.read_text().count("\n") == 2)
    keeper.kill()
    keeper.wait()
    again = int(file.read_text().split()[1])
    wait(lambda: not Path(f"/proc/{again}").exists())


@pytest.mark.parametrize(
    ("status", "words"), [(1, "status 1"), (-9, "signal 9"), (247, "signal 9"), (130, "status 130")]
)
def test_status_of_a_program_is_told_in_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words
