"""Python processes of our own that end with whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedsense_core.errors import FedSenseError

ENDED = 130
GRACE_S = 10.0


def start_child(
    module: str, arguments: list[str], app: Path, threads: int | None, output: int | IO[str] | None
) -> subprocess.Popen[str]:
    """Run a module of the copy of FedSense in ``app``; its output and errors go to ``output``
    (None: where those of this process go).

    ``threads`` is how many torch and BLAS use; None leaves the environment as it is. The child must
    call ``end_with_parent``. Ctrl-C reaches the parent alone, which ends it by ``end_child``.
    """
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(app), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=app,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def end_child(child: subprocess.Popen[str]) -> None:
    """End a child that calls ``end_with_parent``: at once, since all it writes is written whole or
    not at all."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_with_parent() -> None:
    """End this process as soon as its standard input closes: its parent is done with it, or was
    killed."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os._exit(ENDED)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def do_or_tell(work: Callable[[], None], reason_file: str) -> int:
    """Do the work of a child, or leave the reason why not in a file for its parent. Returns the
    exit status."""
    end_with_parent()
    try:
        work()
    except Exception as error:
        traceback.print_exc()
        name = "" if isinstance(error, FedSenseError) else f"{type(error).__name__}: "
        Path(reason_file).write_text(f"{name}{error}", encoding="utf-8")
        return 1
    return 0
