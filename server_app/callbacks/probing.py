"""How good the encoder is, on a labelled set that the server has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedsense_core.config import RunSection
from fedsense_core.data.chips.labelled import LabelledSet
from fedsense_core.evaluation.probes import probe
from server_app.callbacks.callback import RunCallback
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class Probes(RunCallback):
    """Probes the global model every ``run.evaluate_every`` rounds and after the last."""

    run: RunSection
    view_size: int
    labelled: LabelledSet | None
    device: torch.device

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Probe w where it is due."""
        with round.timed("evaluate"):
            every = self.run.evaluate_every
            due = bool(every) and (round.number % every == 0 or round.number == self.run.rounds)
            round.measured["probe"] = self.scores(strategy) if due else None

    def scores(self, strategy: FedSense) -> dict[str, float] | None:
        """Return the probe of w; None where none is wanted."""
        if self.labelled is None or not self.run.evaluate_every:
            return None
        strategy.table.write(strategy.weights, strategy.model)
        encoder = strategy.model.encoder_for(self.labelled.spectrum).to(self.device)
        return probe(encoder, self.labelled, self.view_size, self.device).as_dict()
