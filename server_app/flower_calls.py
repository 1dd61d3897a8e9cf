"""What Flower's own loop calls, which FedSense's ``start`` does not need: another runner of
strategies may.

A round of that loop is heard once. One below the quorum changes nothing and is spent, since only
the loop could repeat it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.record import mean_metrics
from server_app.round import Round
from server_app.transport import Answer


class FlowerCalls(Strategy):
    """Flower's four calls of a round, on top of what a round is here."""

    weights: Tensor
    """w (N,)."""
    round: Round | None = None
    """What configure and aggregate are about."""

    @abstractmethod
    def begin(self, number: int, grid: Grid) -> Round:
        """Begin a round."""

    @abstractmethod
    def admit(self, round: Round, answer: Answer) -> None:
        """Judge what came of a task."""

    @abstractmethod
    def settle(self, round: Round) -> bool:
        """Compare the replies of a round; return whether enough are left."""

    @abstractmethod
    def finish(self, round: Round) -> bool:
        """Move w; return whether the round counted."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Begin a round for Flower; return its tasks, a list: deployments choke on a generator."""
        self.round = self.begin(server_round, grid)
        return self.round.tasks

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admit replies as they come, then move w."""
        assert self.round is not None
        for message in replies:
            self.admit(self.round, Answer(message.metadata.src_node_id, message))
        self.settle(self.round)
        moved, metrics = self.finish(self.round), MetricRecord({**mean_metrics(self.round.accepted)})
        return (ArrayRecord({"weights": Array(self.weights.numpy())}), metrics) if moved else (None, None)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send nothing: a message costs a client process, and probes run on the server."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing: nobody was asked."""
        return None
