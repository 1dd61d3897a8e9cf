"""What the run is doing at this moment, in ``status.json``: for people, and for nothing else."""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import UTC, datetime
from logging import WARNING
from types import TracebackType
from typing import Any

from flwr.common.logger import log

from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder.folder import RunFolder, write_json
from server_app.callbacks.callback import RunCallback
from server_app.round import Round
from server_app.strategy import FedSense

LOOK_S = 2.0
"""How often the run is looked at."""
HEARTBEAT_S = 15.0
"""The file is written so often even where nothing changes: an old one is of a dead process."""


class StatusFile(RunCallback):
    """Keeps the file up to date while a run goes on; use it in a ``with`` around the run.

    A thread of its own looks, so that nothing in a round has to tell it, and a round that waits
    shows that it does. A file that cannot be written never hurts the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._strategy: FedSense | None = None
        self._round: Round | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="status-file", daemon=True)
        self._written: tuple[float, dict[str, Any]] = (0.0, {})
        self._warned = False

    def __enter__(self) -> StatusFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._strategy is not None:
            self._write(self._ended(error))

    def on_start(self, strategy: FedSense) -> None:
        """Begin to look."""
        self._strategy = strategy
        self._thread.start()

    def on_round_begin(self, strategy: FedSense, round: Round) -> None:
        """Look at a round from now on."""
        self._round = round

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Look at no round until the next one begins."""
        self._round = None

    def _look(self) -> None:
        while not self._over.is_set():
            self._write(self._now())
            self._over.wait(LOOK_S)

    def _now(self) -> dict[str, Any]:
        """Return what is going on. The run changes it meanwhile: each part is copied at once."""
        assert self._strategy is not None
        strategy, round = self._strategy, self._round
        cohort, clients = strategy.cohort, strategy.clients
        connected, admitted = sorted(clients.sites.values()), set(cohort.admitted.values())
        refused = [{"node": one.node, "reason": one.reason} for one in list(cohort.refused.values())]
        said = {
            "rounds_done": strategy.rounds_done,
            "rounds": strategy.config.run.rounds,
            "connected": connected,
            "joining": sorted(admitted - {*connected} - {one["node"] for one in refused}),
            "refused": refused,
            "least": strategy.config.federation.min_clients,
        }
        if round is None:
            return said | {"phase": "waiting for institutions", "round": strategy.rounds_done + 1}
        waiting_for = sorted(round.site(node) for node in list(round.silent))
        short = round.asked and len(round.accepted) < strategy.config.federation.quorum
        return said | {
            "phase": "training" if waiting_for else "below the quorum" if short else "aggregating",
            "round": round.number,
            "round_began": _utc(time.time() - (time.monotonic() - round.began)),
            "deadline_s": strategy.config.federation.deadline_s,
            "asked": sorted(round.asked.values()),
            "accepted": sorted(one.site for one in list(round.accepted)),
            "rejected": [{"node": one.node, "reason": one.reason} for one in list(round.rejected)],
            "waiting_for": waiting_for,
        }

    def _ended(self, error: BaseException | None) -> dict[str, Any]:
        if error is None:
            return self._now() | {"phase": "finished"}
        reason = str(error) if isinstance(error, FedSenseError) else f"{type(error).__name__}: {error}"
        return self._now() | {"phase": "stopped", "reason": reason}

    def _write(self, said: dict[str, Any]) -> None:
        at, before = self._written
        now = time.time()
        if said == before and now - at < HEARTBEAT_S:
            return
        self._written = now, said
        whose = {"time": _utc(now), "host": socket.gethostname(), "pid": os.getpid()}
        try:
            write_json(self.run.status_file, whose | said)
        except OSError as error:
            if not self._warned:
                log(WARNING, "%s cannot be written: %s", self.run.status_file, error)
            self._warned = True


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
