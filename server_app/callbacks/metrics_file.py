"""A line of metrics.jsonl and a block in the terminal for every round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedsense_core.run_folder.folder import RunFolder
from server_app.callbacks.callback import RunCallback
from server_app.callbacks.probing import Probes
from server_app.record import line_of
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class Record(RunCallback):
    """Writes each round down, and shows it. Comes after what measures and before the checkpoint:
    what is in a checkpoint has its line."""

    run: RunFolder
    probes: Probes
    show: Callable[[dict[str, Any]], None]

    def on_start(self, strategy: FedSense) -> None:
        """Probe the random weights that every later figure is shown beside."""
        if not self.run.read_metrics():
            self._write({"round": 0, "probe": self.probes.scores(strategy)})

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Write and show the round."""
        round.seconds["total"] = time.monotonic() - round.began
        self._write(line_of(round, strategy.config.alignment_weight))

    def _write(self, line: dict[str, Any]) -> None:
        self.run.append_metrics(line)
        self.show(line)
