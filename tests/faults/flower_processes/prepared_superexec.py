"""`flower-superexec` whose apps are forked from it, once torch and what else an app needs is
imported: five seconds of processor less for each of the hundreds of apps of the suite.

All that an app does is the same, its own process included; the packages of FedSense are not among
what is imported before, each app takes them from the bundle. FEDSENSE_FAULTS_PREPARED=0 starts
Flower's own program instead.
"""

import os
import signal
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import httpx  # noqa: F401
import rasterio  # noqa: F401
import safetensors.torch  # noqa: F401
import sklearn.linear_model  # noqa: F401
import timm  # noqa: F401
import torch._dynamo  # noqa: F401
from flwr.supercore.cli import flower_superexec
from flwr.supercore.exit import exit_handler
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.superlink.cli import flwr_serverapp
from flwr.supernode.cli import flwr_clientapp

APPS = {"flwr-clientapp": flwr_clientapp, "flwr-serverapp": flwr_serverapp}
QUIET = -3
"""As in ``subprocess``."""


def forked(command: list[str], stdout: int | None = None, stderr: int | None = None) -> None:
    """Start an app as ``subprocess.Popen`` does, without its imports."""
    if os.fork():
        return
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        exit_handler.registered_exit_handlers.clear()  # they would close connections of the SuperExec
        if stdout == QUIET:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        sys.argv = command
        code = int(APPS[command[0]]() or 0)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Be a SuperExec."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for an app
    executor: Any = subprocess_executor
    executor.subprocess = SimpleNamespace(Popen=forked, DEVNULL=QUIET)
    print("prepared", flush=True)
    flower_superexec()


if __name__ == "__main__":
    main()
