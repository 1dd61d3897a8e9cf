"""End the work of runs that have ended: neither `flwr stop` nor a failed ServerApp reaches a
ClientApp that trains.

The institution's key may ask the coordinator's Fleet API for the state of a run, as its SuperNode
does. A ClientApp leaves a note of what it does (`fedsense_core.policy.work_folder`); of a run that
has ended the note is taken away, at which the ClientApp answers within a step and its SuperNode is
free for the next run. A process that goes on all the same is killed, and so is one that is past the
minutes of its policy: Flower's SuperNode answers for it within a minute.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.logger import log
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsense_core.errors import FedSenseError
from fedsense_core.policy.work_folder import Work, here, started_at, works

LOOK_S = 10.0
"""Between two looks: with the grace below, work ends within a minute."""
GRACE_S = 20.0
"""For a ClientApp to end by itself, after its note was taken away."""
OVERTIME_S = 60.0
"""Past the minutes of the policy, which the ClientApp keeps by itself."""
HAS_ENDED = (ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED)
"""How the SuperLink answers for a run that no longer runs, and for one that it does not know."""

Ended = Callable[[Work], bool]


@dataclass
class RunWatch:
    """Looks after the work below one institution's state."""

    state: Path
    has_ended: Ended
    """Whether the run of some work has ended, as far as can be known."""
    clock: Callable[[], float] = time.time
    called_off: dict[Path, tuple[Work, float]] = field(default_factory=dict)
    """By note: whose it was, and when it was taken away."""

    def look(self) -> None:
        """Take away the notes of what should end, and kill what has not ended by itself."""
        now = self.clock()
        for path, work in works(self.state).items():
            if not _runs(work):
                path.unlink(missing_ok=True)  # it was killed, and could not take its note away
            elif now > work.until + OVERTIME_S:
                self._call_off(path, work, "it is past the minutes of its policy")
            elif self.has_ended(work):
                self._call_off(path, work, "its run has ended")
        for path, (work, when) in list(self.called_off.items()):
            if work.where != here() or not _runs(work):
                del self.called_off[path]
            elif now > when + GRACE_S:
                log(
                    WARNING, "site %s: %s did not stop by itself: process %d is killed", work.site, work.doing, work.pid
                )
                os.kill(work.pid, signal.SIGKILL)

    def _call_off(self, path: Path, work: Work, why: str) -> None:
        log(WARNING, "site %s: %s is called off: %s", work.site, work.doing, why)
        path.unlink(missing_ok=True)
        self.called_off.setdefault(path, (work, self.clock()))


def watch_runs(superlink: str, root_certificates: Path, key: Path, state: Path, stop: threading.Event) -> None:
    """Look after an institution's work until ``stop`` is set: call it in a thread beside the
    SuperNode. `main` is the same as a program of its own.

    ``superlink`` is the coordinator's address (HOST:PORT), ``root_certificates`` its certificate,
    ``key`` the institution's private key, ``state`` what the SuperNode's node configuration calls
    ``state-dir``. No connection, no verdict: work goes on, for the minutes of its policy.
    """
    with fleet_client(superlink, root_certificates, key) as client:
        watch = RunWatch(state, lambda work: has_ended(client, work))
        while not stop.wait(LOOK_S):
            try:
                watch.look()
            except OSError as error:
                log(WARNING, "the work of runs that ended cannot be looked after just now: %s", error)


def main(arguments: Sequence[str]) -> None:
    """Watch until the process is ended: SUPERLINK ROOT_CERTIFICATES KEY STATE, as `watch_runs`
    takes them."""
    superlink, *paths = arguments
    root_certificates, key, state = map(Path, paths)
    watch_runs(superlink, root_certificates, key, state, threading.Event())


def fleet_client(superlink: str, root_certificates: Path, key: Path) -> FleetHttpClient:
    """Return a client of the coordinator's Fleet API that signs as the institution's SuperNode
    does."""
    private = load_ssh_private_key(key.read_bytes(), None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise FedSenseError(f"{key}: an elliptic-curve key is needed (ssh-keygen -t ecdsa -b 384)")
    signing = NodeAuthHttpInterceptor(private, private.public_key())
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    return FleetHttpClient.from_server_address(superlink, False, root_certificates.read_bytes(), [version, signing])


def has_ended(client: FleetHttpClient, work: Work) -> bool:
    """Return whether the SuperLink says that the run of some work has ended; False where it says
    nothing."""
    request = GetRunRequest(node=Node(node_id=work.node_id), run_id=work.run_id)
    try:
        client.GetRun(request)
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        return said is not None and said.code in HAS_ENDED
    except (httpx.HTTPError, ValueError, RuntimeError) as error:
        log(WARNING, "the coordinator cannot be asked whether the run still goes on: %s", error)
    return False


def _runs(work: Work) -> bool:
    """Return whether the process of a note is still there, and no other that was given its number;
    True for one of another container, which cannot be seen."""
    if work.where != here():
        return True
    try:
        os.kill(work.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started_at(work.pid) == work.started  # SuperExec never asks after its children: they stay as zombies


if __name__ == "__main__":
    main(sys.argv[1:])
