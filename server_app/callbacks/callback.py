"""What a callback is. A new one, such as a tracker, is one file here and one line in
``server_app/session.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server_app.round import Round
    from server_app.strategy import FedSense


class RunCallback:
    """Called by the strategy, in the order in which callbacks are listed. Override what you need.

    A callback may put entries into ``round.measured``; those after it see them.
    """

    def on_start(self, strategy: FedSense) -> None:
        """Be called once, before the first round that this process runs."""

    def on_round_begin(self, strategy: FedSense, round: Round) -> None:
        """Be called once a round's clients are chosen and their tasks are made."""

    def on_round_end(self, strategy: FedSense, round: Round) -> None:
        """Be called after every round, whether it counted or not."""

    def on_end(self, strategy: FedSense) -> None:
        """Be called once, after the last round."""
