"""A line of metrics.jsonl for every round."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fedsense_core.data.overlap import OverlapShares
from fedsense_core.run_folder.folder import RunFolder
from server_app.callbacks.callback import RunCallback
from server_app.callbacks.probing import Probes
from server_app.record import line_of
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class Record(RunCallback):
    """Writes each round down. Comes after what measures and before the checkpoint: what is in a
    checkpoint has its line."""

    run: RunFolder
    probes: Probes
    overlap: OverlapShares
    """What sites say that they share with the server's sets."""

    def on_start(self, strategy: FedSense) -> None:
        """Probe the weights before training, which every later figure is shown beside."""
        if not self.run.read_metrics():
            weights = "given" if strategy.config.model.weights else "random"
            self.run.append_metrics({"round": 0, "weights": weights, "probe": self.probes.scores(strategy)})

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Write the round."""
        round.seconds["total"] = time.monotonic() - round.began
        line = line_of(round, strategy.config.alignment_weight)
        self.run.append_metrics(line | {"overlap": self.overlap.by_site} if self.overlap.by_site else line)
