"""Keeps programs running: starts them in order, starts one that dies again after growing pauses,
and ends them in reverse order.

A program that cannot stay up ends the command with its reason. Each has a supervisor of its own,
which ends it even where this command is killed.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from fedsense_core.tools.deployment.coordinator_folder import LOOPBACK
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.parts import Part, prepare, supervised
from fedsense_core.tools.runner.log_lines import COLOUR

Say = Callable[[str], None]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STABLE_S = 60.0
"""A program that was up for so long is well: its next death is a new matter."""
GIVE_UP_S = 150.0
"""Flower takes an earlier SuperNode for connected for up to 60 s, and refuses the next one."""
START_S = 120.0
"""Within which a program listens on its port, on a machine under load."""
LINES_KEPT = 40
EVERYDAY = re.compile(r'INFO \[uvicorn\.access\].*" 2\d\d$')
"""Each SuperNode asks every three seconds: weeks of answers that say nothing."""
EXIT_REPORT = re.compile(r"Exit Code: \d+\n(.*?)(?:\n\s*\n|For more information|\Z)", re.DOTALL)
"""How Flower's programs say why they end."""


class Patience:
    """How long to wait before a program that died is started again."""

    def __init__(self, now: float) -> None:
        self._pause, self._unwell_since = FIRST_PAUSE_S, now

    def pause_s(self, began: float, now: float) -> float | None:
        """Return the pause after a life from ``began`` to ``now``, both in seconds: growing from
        death to death; None for a program that does not stay up."""
        if now - began > STABLE_S:
            self._unwell_since, self._pause = now, FIRST_PAUSE_S
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_S)
        return None if now + pause - self._unwell_since > GIVE_UP_S else pause


class Kept:
    """One program, alive or between two lives."""

    def __init__(self, part: Part, say: Say) -> None:
        self.part, self._say = part, say
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._began, self._due, self._patience = 0.0, 0.0, Patience(time.monotonic())

    def start(self) -> None:
        """Start the program. Its output is passed on line by line."""
        prepare(self.part)
        self._lines.clear()
        self._process = subprocess.Popen(
            supervised(self.part),
            cwd=self.part.home,
            env=self.part.environment(),
            stdin=subprocess.PIPE,  # closing it ends the program
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is answered here
            umask=0o077,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._began = time.monotonic()
        self._reader = threading.Thread(target=self._pass_on, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether the program runs."""
        return self._process is not None and self._process.poll() is None

    def listens(self) -> bool:
        """Return whether the program has opened its port; True for one that opens none."""
        return self.part.port is None or port_answers(self.part.port)

    def look_after(self, now: float) -> None:
        """Start the program again where it died and its pause is over.

        Raises DeploymentError with the reason where it could not stay up.
        """
        if self.is_alive:
            return
        if not self._due:
            self._plan_restart(now)
        elif now >= self._due:
            self._due = 0.0
            self.start()

    def end(self) -> None:
        """End the program and everything it started, and wait until they are gone."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._join_reader()

    def reason(self, status: str) -> str:
        """Return how the program ended, and why, from its last words."""
        self._join_reader()
        said = COLOUR.sub("", "\n".join(self._lines))
        for text, meaning in self.part.meanings.items():
            if text in said:
                return f"{self.part.name} ended: {meaning}"
        report = EXIT_REPORT.search(said)
        words = report[1] if report else "\n".join(said.splitlines()[-4:])
        because = "" if status.startswith("signal") else f": {' '.join(words.split()) or 'it said nothing'}"
        return f"{self.part.name} ended ({status}){because}"

    def _plan_restart(self, now: float) -> None:
        assert self._process is not None
        died = self.reason(how_it_ended(self._process.returncode))
        pause = self._patience.pause_s(self._began, now)
        if pause is None:
            raise DeploymentError(f"{died}. For {GIVE_UP_S:g} s it did not stay up")
        self._say(f"{died}. It is started again in {pause:g} s")
        self._due = now + pause

    def _pass_on(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not EVERYDAY.search(line):
                self._lines.append(line.rstrip())
                self._say(f"{self.part.name} | {line.rstrip()}")

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=5.0)  # a grandchild may hold the pipe a little longer


def keep_running(parts: Sequence[Part], say: Say) -> int:
    """Keep programs running until a signal comes; return the exit status: 0, or 130 after Ctrl-C.

    Raises DeploymentError where a port is taken or a program does not stay up; everything is ended
    then too.
    """
    for part in parts:
        if part.port is not None and port_answers(part.port):
            raise DeploymentError(
                f"port {part.port} of {LOOPBACK} is in use: another `serve` of this folder may be running, or "
                f"another program. {part.name} needs it"
            )
    kept: list[Kept] = []
    with _signals() as asked_to_end:
        try:
            for part in parts:
                kept.append(Kept(part, say))
                kept[-1].start()
                _await_port(kept, asked_to_end)
            while not asked_to_end:
                for one in kept:
                    one.look_after(time.monotonic())
                time.sleep(0.2)
        finally:
            for one in reversed(kept):
                one.end()
        return 130 if asked_to_end[0] == signal.SIGINT else 0


def port_answers(port: int) -> bool:
    """Return whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(5.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def how_it_ended(status: int) -> str:
    """Return a supervisor's exit status in words: that of its program, negative or folded into a
    byte where a signal ended it."""
    number = -status if status < 0 else 256 - status
    return f"signal {number}" if status < 0 or 0 < number <= 64 else f"status {status}"


def _await_port(kept: Sequence[Kept], asked_to_end: Sequence[int]) -> None:
    """Wait until the last program listens, and look after all meanwhile."""
    deadline = time.monotonic() + START_S + GIVE_UP_S
    while not asked_to_end and not kept[-1].listens():
        if time.monotonic() > deadline:
            raise DeploymentError(f"{kept[-1].part.name} does not listen on port {kept[-1].part.port}")
        for one in kept:
            one.look_after(time.monotonic())
        time.sleep(0.1)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask to end, in place of ending at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
