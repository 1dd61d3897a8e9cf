"""A checkpoint after every round."""

from __future__ import annotations

from dataclasses import dataclass

from server_app.callbacks.callback import RunCallback
from server_app.checkpoints import Checkpoints
from server_app.round import Round
from server_app.strategy import FedSense


@dataclass
class Checkpoint(RunCallback):
    """Saves the strategy's state. Comes last: nothing repeats a round that is in a checkpoint."""

    checkpoints: Checkpoints
    known: frozenset[str] = frozenset()
    """Sites of which an update had counted when the round began."""

    def on_start(self, strategy: FedSense) -> None:
        """Save the first model before the first round."""
        if strategy.rounds_done == 0:
            self.checkpoints.save(0, strategy.state_dict())

    def on_round_begin(self, strategy: FedSense, round: Round) -> None:
        """Note who has taken part so far."""
        self.known = frozenset(strategy.clients.acknowledged)

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Save what the next round begins with. The checkpoint before a site's first update stays:
        from there the run can go on as if that site had never been in it."""
        if frozenset(strategy.clients.acknowledged) - self.known and round.number > 1:
            self.checkpoints.keep_for_good(round.number - 1)
        self.checkpoints.save(round.number, strategy.state_dict())
