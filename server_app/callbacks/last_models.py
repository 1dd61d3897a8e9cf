"""The models of the last round, for ``fedsense analyse``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from logging import WARNING

from flwr.common.logger import log
from safetensors import SafetensorError

from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.snapshots import write_snapshots
from server_app.callbacks.callback import RunCallback
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class LastModels(RunCallback):
    """Writes w, ŵ and each client's model after the last round. Comes before the checkpoint, after
    which nothing repeats the round."""

    run: RunFolder

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Write the models of the last round, decoding one client's update at a time."""
        if round.number != strategy.config.run.rounds:
            return
        start = round.expected.replica.weights
        clients = ((one.site, start + one.update()) for one in round.accepted)
        try:
            write_snapshots(self.run.models, strategy.table, start=start, final=strategy.weights, clients=clients)
        except (OSError, SafetensorError) as error:
            # A full disk does not end the run for want of them; a part of them helps nobody.
            shutil.rmtree(self.run.models, ignore_errors=True)
            words = "the models of the last round are not kept for `fedsense analyse`, in %s: %s"
            log(WARNING, words, self.run.models, error)
