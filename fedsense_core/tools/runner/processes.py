"""Small things about this process and its ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fedsense_core.errors import FedSenseError


def program(name: str) -> str:
    """Return the path of one of Flower's programs, from the environment that runs FedSense."""
    found = shutil.which(name, path=search_path())
    if found is None:
        raise FedSenseError(f"`{name}` is not installed beside {sys.executable}: install FedSense again, with Flower")
    return found


def search_path() -> str:
    """Return a PATH that begins with the programs of the environment that runs FedSense."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that whatever was started is ended in both cases."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
