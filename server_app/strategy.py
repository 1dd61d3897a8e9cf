"""FedSense as a Flower strategy: the server's half of docs/method.md, section 3.
``client_app/training.py`` is the client's.

Derived from Flower's ``Strategy``, not from its FedAvg: there one inconsistent reply ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import Config
from fedsense_core.errors import Rejected
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.prediction import UpdatePrediction, prediction
from fedsense_core.protocol.side_channels import SideChannel, accept_all, attachments_for, side_channels
from fedsense_core.state import State, Stateful
from fedsense_core.tensors import TensorTable
from server_app.admission import Admission
from server_app.aggregation.clipping import clipped
from server_app.aggregation.rule import AggregationRule
from server_app.callbacks.callback import RunCallback
from server_app.clients import Clients
from server_app.cohort import Cohort
from server_app.conversation import Conversation, Voice
from server_app.distillation.distiller import Distiller
from server_app.drift_metrics import measured
from server_app.flower_calls import FlowerCalls
from server_app.method_summary import summary_lines
from server_app.outer_optimiser.outer_optimiser import OuterOptimiser
from server_app.radius import Radius
from server_app.record import mean_metrics
from server_app.round import Expected, Round
from server_app.transport import Answer


class FedSense(FlowerCalls):
    """Mutual guidance between a server and the clients that must not share their imagery.

    ``model`` is a scratch copy to decode into, whose parameters are w_1; frames wait in ``spool``.
    """

    def __init__(
        self,
        config: Config,
        model: PretrainingModel,
        run_id: int,
        spool: Path,
        distiller: Distiller | None = None,
        callbacks: Sequence[RunCallback] = (),
        channels: Sequence[SideChannel] = (),
    ) -> None:
        self.config, self.model, self.distiller, self.callbacks = config, model, distiller, callbacks
        self.table = TensorTable.of(model, config.model.local_parameters)
        self.weights = self.table.read(model).float()  # w (N,)
        self.rounds_done = self.aggregated = 0  # rounds that are over, and those of them that changed w
        self.moved = True  # whether w changed since the last broadcast
        self.stream = Stream(run_id, config.run.seed, self.table, config.momentum_in_use)
        self.broadcaster = Broadcaster(self.stream, codec_of(config.downlink))
        self.channels = (*(kept := side_channels(config)), *channels)
        self.clients = Clients()
        self.cohort = Cohort(config, run_id, self.clients, self.channels)
        self.admission = Admission(config, spool, self.channels, self.clients)
        self.radius = Radius(config, self.table)
        self.prediction = UpdatePrediction(config, self.table)
        self.rule = AggregationRule.of(config)
        self.outer = OuterOptimiser.of(config.outer)
        self.conversation: Conversation | None = None  # with the grid of the last round
        self.parts: dict[str, Stateful] = {
            **{"broadcaster": self.broadcaster, "clients": self.clients, "admission": self.admission},
            **{"radius": self.radius, "prediction": self.prediction, "outer": self.outer},
            **{channel.name: channel for channel in kept},
        }

    def summary(self) -> None:
        """Log the switches that make up the method."""
        for level, line in summary_lines(self.config, self.table.numel):
            log(level, "\t%s", line)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        *unused: object,
        **unused_too: object,
    ) -> Result:
        """Run the rounds that are still to do; Flower's own loop always starts at round 1.

        Number of rounds and deadline come from the configuration unless given; the model is the
        strategy's own. Raises RunPaused where too few clients take part in a round.
        """
        rounds = self.config.run.rounds if num_rounds is None else num_rounds
        deadline_s = self.config.federation.deadline_s if timeout is None else timeout
        log(INFO, "Starting FedSense at round %d of %d:", self.rounds_done + 1, rounds)
        self.summary()
        result = Result()
        for callback in self.callbacks:
            callback.on_start(self)
        for number in range(self.rounds_done + 1, rounds + 1):
            result.train_metrics_clientapp[number] = self.run_round(number, grid, deadline_s)
        for callback in self.callbacks:
            callback.on_end(self)
        result.arrays = ArrayRecord({"weights": Array(self.weights.numpy())})
        return result

    def run_round(self, number: int, grid: Grid, deadline_s: float) -> MetricRecord:
        """Run one round to its end; return the clients' mean metrics."""
        round = self.begin(number, grid)
        for callback in self.callbacks:
            callback.on_round_begin(self, round)
        with round.timed("clients"):
            self._conversation(grid).hold(round, deadline_s)
        self.finish(round)
        self.rounds_done = number
        for callback in self.callbacks:
            callback.on_round_end(self, round)
        self.admission.spool.clear()
        return MetricRecord({**mean_metrics(round.accepted)})

    def begin(self, number: int, grid: Grid) -> Round:
        """c_t = encode(w_t - ŵ_{t-1}), ρ_l, γ_l; each chosen client gets the frames it lacks."""
        began = time.monotonic()
        busy = self._conversation(grid).busy()
        chosen, absent = self.cohort.choose(grid, number, busy) if self.config.asks_clients else ([], [])
        absent += [Rejected(site, "still at work on an earlier round's task") for site in busy.values()]
        if self.moved or self.broadcaster.replica is None:
            self.broadcaster.advance(self.weights)
            self.moved = False
        replica = self.broadcaster.current
        gammas_L, radii_L = self.prediction.gammas(replica), self.radius.radii(number)
        predicted = prediction(gammas_L, replica.momentum, self.table)
        expected = Expected(self.config, self.stream, number, replica, replica.digest(), predicted)
        round = Round(number, expected, radii_L, gammas_L, len(chosen), rejected=absent, began=began)
        self.admission.restore(round)
        for node, site in chosen:
            self.ask(round, node, site)
        round.seconds["down"] = time.monotonic() - began
        return round

    def ask(self, round: Round, node: int, site: str) -> None:
        """Address the round's task to a site, with the frames and attachments that it lacks."""
        has = self.clients.state_of(site)
        draws = self.clients.draws(site, round.expected.digest)
        frames = self.broadcaster.frames_for(has.version if has else None, draws)
        round.ask(node, site, has.round if has else 0, frames, attachments_for(self.channels, site))

    def admit(self, round: Round, answer: Answer) -> None:
        """Δ̂_i = γ m̂ + decode(q_i), accepted or rejected.

        A reply belongs to the node whose task was answered, never to the one that it names.
        """
        round.silent.discard(answer.node)
        with round.timed("admit"):
            round.take(self.admission.admit(answer, round.site(answer.node), round))

    def settle(self, round: Round) -> bool:
        """Leave out what is too large beside the others; return whether enough is left."""
        self.admission.compare(round)
        return round.counts

    def finish(self, round: Round) -> bool:
        """Move w; below the quorum nothing moves, and False is returned."""
        round.close()
        self.clients.heed(round.rejected)
        residual = " and, with it, its error-feedback residual" if self.config.feedback_in_use else ""
        for site in self.clients.report_losses():
            round.note(site, f"its state is gone{residual}; it continues from a snapshot")
        if not round.counts:
            for channel in self.channels:
                channel.skip_round()
            return False
        if self.config.asks_clients:
            self._aggregate(round)
        if self.distiller is not None:
            self._distil(round, self.distiller)
        self._acknowledge(round)
        return True

    def _aggregate(self, round: Round) -> None:
        """Δ̄ = Σ p_i Δ̂_i; w = outer optimiser (w_t, Δ̄), or what another rule makes of replies."""
        with round.timed("aggregate"):
            accepted = round.accepted = clipped(round.accepted, self.config.aggregation)
            mean, replica = self.rule.centre(accepted), round.expected.replica
            update = mean - replica.weights if self.config.sends_models else mean
            if self.rule.moves_the_model:
                combined = self.rule.combine(accepted, mean, self.table, self.aggregated)
                self.weights = combined if self.config.sends_models else self.outer.step(self.weights, combined)
                self.moved = True
            round.measured |= measured(accepted, update, self.rule)
            self.radius.observe(update)
            self.prediction.observe(update, replica)

    def _distil(self, round: Round, distiller: Distiller) -> None:
        """w_{t+1} = distillation on P, from w, teachers ŵ_t + Δ̂_i."""
        with round.timed("distill"):
            teachers = distiller.teachers(round.accepted, self.model, self.table)
            self.table.write(self.weights, self.model)
            self.weights, loss = distiller.distil(self.model, self.table, teachers, round.number)
            round.measured["distillation_loss"] = loss
            self.moved = True

    def _acknowledge(self, round: Round) -> None:
        for one in round.accepted:
            self.clients.acknowledge(one.site, round.number, round.expected.replica.version)
            if one.note:
                round.note(one.site, one.note)
        self.admission.remember(round.accepted)
        accept_all(self.channels, {one.site: one.said for one in round.accepted})
        self.aggregated += 1

    def _conversation(self, grid: Grid) -> Conversation:
        if self.conversation is None or self.conversation.grid is not grid:
            voice = Voice(self.ask, self.admit, self.settle, self.admission.limits(self.table))
            self.conversation = Conversation(grid, self.config.federation, self.cohort, self.clients, voice)
        return self.conversation

    def state_dict(self) -> State:
        """Return all that survives a round: what a checkpoint saves."""
        own = {"run_id": self.stream.run_id, "round": self.rounds_done, "aggregated": self.aggregated}
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        return {**own, "weights": self.weights, "moved": self.moved, **parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, in a strategy that was made with its ``run_id``."""
        self.weights, self.moved = state["weights"], state["moved"]
        self.rounds_done, self.aggregated = state["round"], state["aggregated"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
