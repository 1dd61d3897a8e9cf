"""A block in the terminal for every round."""

from __future__ import annotations

from dataclasses import dataclass

from fedsense_core.run_folder.folder import RunFolder
from server_app.callbacks.callback import RunCallback
from server_app.printer import RoundPrinter
from server_app.record import line_of
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class Terminal(RunCallback):
    """Shows each round, and before the first one what its weights are worth."""

    run: RunFolder
    printer: RoundPrinter

    def on_start(self, strategy: FedSense) -> None:
        """Show the line that was written since the printer was made: that of round 0."""
        for line in self.run.read_metrics()[len(self.printer.history) :]:
            self.printer.show(line)

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Show the round."""
        self.printer.show(line_of(round, strategy.config.alignment_weight))
