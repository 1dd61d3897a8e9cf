"""What a round costs the server beside time."""

from __future__ import annotations

from fedsense_core.device import peak_memory
from server_app.callbacks.callback import RunCallback
from server_app.round import Round
from server_app.strategy import FedSense


class Resources(RunCallback):
    """Adds the ServerApp's peak memory so far, in bytes, to each round."""

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Measure the process."""
        round.measured["server_memory"] = peak_memory()
