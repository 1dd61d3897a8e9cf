"""FedSense as a Flower strategy: the server's half of DESIGN section 3. ``client_app/training.py``
is the client's.

Derived from Flower's ``Strategy``, not from its FedAvg: there one inconsistent reply ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from logging import DEBUG, INFO, WARNING

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from torch import Tensor

from fedsense_core.codecs import Codec, codec_of, compiled
from fedsense_core.config import SCALED_CODECS, Config
from fedsense_core.errors import FedSenseError, Rejected
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.frame import FrameKind
from fedsense_core.protocol.messages import TrainTask, bytes_up
from fedsense_core.protocol.prediction import coefficients, momentum_weight, prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.schedule import learning_rate
from fedsense_core.ssl.federated import Offset
from fedsense_core.tensors import TensorTable
from server_app.admission import Accepted, Admission, Expected
from server_app.aggregation.mean import layerwise_mean, model_of, spread_of, weighted_mean, weights_of
from server_app.checkpoints import ServerState
from server_app.clients import Roster
from server_app.cohort import Gathering
from server_app.distillation.distiller import Distiller
from server_app.outer_optimiser import OuterOptimiser
from server_app.radius import radii, ramp
from server_app.record import RoundRecord, mean_metrics
from server_app.transport import Answer, Exchange

TRAVELLING = "weights"
"""Key of the flat vector in the ArrayRecord that Flower's strategy interface passes around."""


class FedSense(Strategy):
    """Mutual guidance between a server and the clients that must not share their imagery.

    ``model`` is a scratch copy to decode into; ``state`` is what the strategy carries between
    rounds and what a checkpoint saves; ``after_round`` is called with every finished round
    (checkpoint, probes, report).
    """

    def __init__(
        self,
        config: Config,
        model: PretrainingModel,
        state: ServerState,
        admission: Admission,
        *,
        distiller: Distiller | None = None,
        after_round: Callable[[RoundRecord, FedSense], None] = lambda record, strategy: None,
    ) -> None:
        self.config = config
        self.model = model
        self.state = state
        self.admission = admission
        self.distiller = distiller
        self.after_round = after_round
        self.table = TensorTable.of(model, config.model.local_parameters)
        self.codec = codec_of(config.uplink)
        self.roster = Roster(held=state.held)
        self.gathering = Gathering(config, state.run_id, self.roster, state.statistics)
        self.outer = OuterOptimiser(config.outer, state.outer_momentum)
        down = codec_of(config.downlink)
        self.stream = Stream(state.run_id, config.run.seed, self.table, config.momentum_in_use)
        self.broadcaster = Broadcaster(self.stream, down, state.replica, state.frames)
        self.record = RoundRecord(0)
        self._asked: set[int] = set()
        """Nodes that have not answered this round's task."""
        self._pulled_for: int | None = None
        """Node whose reply is being judged: the one that was asked, never the one that a reply
        names."""
        self._expected: Expected | None = None

    def summary(self) -> None:
        """Log the switches that make up the method."""
        config = self.config
        radius = f", r = {config.guidance.radius:g}" if config.guidance.kind != "none" else ""
        inner = "" if config.train.optimiser == "adamw" else f", inner optimiser {config.train.optimiser}"
        recipe = config.train.recipe + (" with federated SIGReg" if config.train.federated_sigreg else "")
        log(INFO, "\t├── preset %s, recipe %s%s", config.preset, recipe, inner)
        log(INFO, "\t├── %s: %s parameters travel", config.model.architecture, f"{self.table.numel:,}")
        log(INFO, "\t├── guidance: %s%s; alignment: %g", config.guidance.kind, radius, config.alignment_weight)
        up = f"{_codec_text(self.codec)} {_feedback_text(config)}"
        log(INFO, "\t├── up: %s, down: %s", up, _codec_text(self.broadcaster.codec))
        if "trellis" in (self.codec.name, self.broadcaster.codec.name) and not compiled.is_available():
            log(WARNING, "\t├── numba is not installed: the trellis search takes twenty times as long without it")
        if config.retention.kind != "none":
            log(INFO, "\t├── clients keep of their own model: %s", config.retention.kind)
        rule = "" if config.aggregation.kind == "mean" else f"aggregation: {config.aggregation.kind}; "
        log(INFO, "\t└── %souter: %s; distillation: %s", rule, config.outer.kind, config.distillation.kind)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are still to do; Flower's own loop always starts at round 1.

        Weights, number of rounds and deadline come from the state and the configuration unless
        given. Raises FedSenseError where no round was ever aggregated.
        """
        if initial_arrays is not None:
            self.state.weights = _from_arrays(initial_arrays)
        rounds = self.config.run.rounds if num_rounds is None else num_rounds
        deadline_s = self.config.federation.deadline_s if timeout is None else timeout
        log(INFO, "Starting FedSense at round %d of %d:", self.state.round + 1, rounds)
        self.summary()
        result = Result()
        for server_round in range(self.state.round + 1, rounds + 1):
            metrics = self._run_round(server_round, grid, train_config or ConfigRecord(), deadline_s)
            if metrics is not None:
                result.train_metrics_clientapp[server_round] = metrics
        if not self.state.aggregated:
            raise FedSenseError("no round was aggregated: too few replies were accepted; the reasons are above")
        result.arrays = _to_arrays(self.state.weights)
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Advance the broadcast to w_t and address every chosen client with the frames that it
        lacks."""
        began = time.monotonic()
        self._expected = None  # what the last round held of the model is free before the next is built
        chosen, absent = self.gathering.choose(grid, server_round) if self.config.asks_clients else ([], [])
        self.record = RoundRecord(server_round, rejected=absent, elements=self.table.numel)
        if self.state.moved or self.broadcaster.replica is None:
            self.broadcaster.advance(_from_arrays(arrays))
            self.state.moved = False
        self._expected = self._expect(server_round)
        radii_L = radii(self.config, server_round, self.state.last_norms, len(self.table))
        self._note_start(server_round, radii_L)
        messages = [self._message(node, site, server_round, radii_L) for node, site in chosen]
        self.record.seconds["down"] = time.monotonic() - began
        return messages  # a list: a generator works in simulation and gives HTTP 500 in a deployment

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admit replies as they come, then move w; below the quorum nothing moves."""
        began = time.monotonic()
        self._admit(replies)
        self.record.seconds["clients"] = time.monotonic() - began
        accepted = self.record.accepted
        if self.config.asks_clients and len(accepted) < self.config.federation.quorum:
            quorum = self.config.federation.quorum
            log(WARNING, "round %d: %d accepted, quorum %d: nothing changes", server_round, len(accepted), quorum)
            self.state.embedding_sums = {}  # along directions that no round to come looks along
            return None, None
        began = time.monotonic()
        if self.config.asks_clients:
            self._move(accepted)
        self.record.seconds["aggregate"] = time.monotonic() - began
        self._distil(accepted, server_round)
        self._acknowledge(accepted, server_round)
        return _to_arrays(self.state.weights), MetricRecord({**mean_metrics(accepted)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send nothing: a message costs a client process, and probes run on the server."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing; see ``configure_evaluate``."""
        return None

    def _run_round(self, server_round: int, grid: Grid, config: ConfigRecord, deadline_s: float) -> MetricRecord | None:
        began = time.monotonic()
        messages = list(self.configure_train(server_round, _to_arrays(self.state.weights), config, grid))
        exchange = Exchange(grid)
        refused = exchange.send(messages)
        self._asked = {message.metadata.dst_node_id for message in messages}
        _, metrics = self.aggregate_train(server_round, self._hear(refused, exchange, deadline_s))
        self.state.round = server_round
        self.state.replica = self.broadcaster.replica
        self.record.seconds["total"] = time.monotonic() - began
        self.after_round(self.record, self)
        for one in self.record.accepted:
            one.path.unlink(missing_ok=True)
        return metrics

    def _hear(self, refused: list[Answer], exchange: Exchange, deadline_s: float) -> Iterator[Message]:
        """Yield replies marked with the node they were pulled for; what is no reply is rejected
        here."""
        for answer in chain(refused, exchange.collect(deadline_s)):
            self._asked.discard(answer.node)
            if answer.message is None:
                self._reject(Rejected(self._site(answer.node), answer.problem))
            else:
                self._pulled_for = answer.node
                yield answer.message

    def _site(self, node: int) -> str:
        return self.roster.sites.get(node, f"node {node}")

    def _note_start(self, server_round: int, radii_L: Tensor) -> None:
        assert self._expected is not None
        # An absolute radius is one for all tensors together, sent with each of them.
        absolute = self.config.guidance.scale == "absolute"
        self.record.radius = float(radii_L.max() if absolute else radii_L.norm())
        self.record.ramp = ramp(self.config, server_round)
        self.record.momentum_norm = float(self._expected.replica.momentum.norm())
        if self._expected.predicted is not None:
            self.record.prediction_norm = float(self._expected.predicted.norm())
        first_step = (server_round - 1) * self.config.train.local_steps
        self.record.learning_rate = learning_rate(self.config, first_step)

    def _expect(self, server_round: int) -> Expected:
        replica = self.broadcaster.replica
        assert replica is not None
        kind = FrameKind.MODEL if self.config.sends_models else FrameKind.UPDATE
        predicted = prediction(self._gammas(replica), replica.momentum, self.table)
        return Expected(self.stream, server_round, replica, replica.digest(), kind, self.codec, predicted)

    def _gammas(self, replica: Replica) -> Tensor:
        """Return γ_l, float32 (L,): the share that the last aggregated round had of m̂ / weight,
        for m̂ as it is."""
        if self.state.shares is None:
            return torch.zeros(len(self.table))
        return self.state.shares / momentum_weight(self.config.guidance.momentum, replica.version)

    def _message(self, node: int, site: str, server_round: int, radii_L: Tensor) -> Message:
        assert self._expected is not None
        held = self.roster.acknowledged(site)
        task = TrainTask(
            run_id=self.state.run_id,
            round=server_round,
            version=self._expected.replica.version,
            acknowledged=held.round if held else 0,
            code=source_digest(),
            config_digest=self.config.digest,
            radii=radii_L.numpy(),
            gammas=self._gammas(self._expected.replica).numpy(),
            frames=self.broadcaster.frames_for(held.version if held else None),
            offset=self._offset(site),
        )
        self.record.asked += 1
        self.record.bytes_down += task.bytes_down
        ttl = self.config.federation.deadline_s  # late work is worthless: do not let it delay the next task
        return Message(task.to_records(), node, MessageType.TRAIN, group_id=str(server_round), ttl=ttl)

    def _offset(self, site: str) -> bytes:
        """Return how far all embeddings of the last round were from a site's own; empty where it
        had none, or alone."""
        sums = self.state.embedding_sums
        if site not in sums or len(sums) < 2:
            return b""
        return Offset.between([sums[name] for name in sorted(sums)], sums[site]).to_bytes()

    def _admit(self, replies: Iterable[Message]) -> None:
        assert self._expected is not None
        seen: set[str] = set()
        for message in replies:
            node = message.metadata.src_node_id if self._pulled_for is None else self._pulled_for
            site = self._site(node)
            self.record.bytes_up += bytes_up(message)
            judged = self.admission.admit(message, site, self._expected, seen)
            if isinstance(judged, Rejected):
                self._reject(judged)
            else:
                seen.add(site)
                self.record.accepted.append(judged)
        deadline_s = self.config.federation.deadline_s
        for node in sorted(self._asked):
            self._reject(Rejected(self._site(node), f"no answer within {deadline_s:g} s (federation.deadline_s)"))
        self.record.accepted.sort(key=lambda one: one.site)
        owed = " and, with it, what its codec still owed" if self.config.feedback_in_use else ""
        for site in self.roster.tell_losses():
            self._tell(site, f"its state is gone{owed}; it continues from a snapshot")

    def _tell(self, site: str, note: str) -> None:
        log(WARNING, "site %s: %s", site, note)
        self.record.notes.append({"site": site, "note": note})

    def _reject(self, rejected: Rejected) -> None:
        log(DEBUG, "%s is left out of the round: %s", rejected.node, rejected.reason)
        self.record.rejected.append(rejected)
        if rejected.cause == "needs-snapshot":
            self.roster.lose(rejected.node)
        if rejected.cause == "other-site":
            self.roster.forget(rejected.node)

    def _move(self, accepted: list[Accepted]) -> None:
        """Set w to the outer optimiser's step along Δ̄ = Σ p_i Δ̂_i, or to what the rule of
        aggregation makes of it.

        Whatever the rule, Δ̄ is what drift, radii and predictor are measured by: it says how far
        clients went.
        """
        assert self._expected is not None
        mean = weighted_mean(accepted)
        base = self._expected.replica.weights
        update = mean - base if self.config.sends_models else mean
        self.state.weights, self.state.moved = self._aggregated(accepted, mean), True
        self.record.drift, self.record.cosine = spread_of(accepted, update)
        self.record.update_norm = float(update.norm())
        self.state.last_norms = self.table.norms(update)
        if self.config.predictor_in_use:
            replica = self._expected.replica
            weight = momentum_weight(self.config.guidance.momentum, replica.version)
            self.state.shares = coefficients(update, replica.momentum, weight, self.table)
        self.state.outer_momentum = self.outer.momentum

    def _aggregated(self, accepted: list[Accepted], mean: Tensor) -> Tensor:
        """Return w (N,) before distillation; ``mean`` is that of what travelled: models, or
        updates."""
        assert self._expected is not None
        kind, plain_rounds = self.config.aggregation.kind, self.config.aggregation.plain_rounds
        if kind == "none":
            return self.state.weights
        if kind != "mean" and self.state.aggregated >= plain_rounds:
            model = layerwise_mean(accepted, self.table, normalised=kind == "l-dawa-normalised")
            mean = model if self.config.sends_models else model - self._expected.replica.weights
        return mean if self.config.sends_models else self.outer.step(self.state.weights, mean)

    def _distil(self, accepted: list[Accepted], server_round: int) -> None:
        if self.distiller is None:
            return
        began = time.monotonic()
        assert self._expected is not None
        teachers = []
        for one, weight in zip(accepted, weights_of(accepted), strict=True):
            if self.distiller.needs_teachers:
                self.table.write(model_of(one), self.model)
                teachers.append(self.distiller.look(self.model, weight))
        self.table.write(self.state.weights, self.model)
        distilled = self.distiller.distil(self.model, self.table, teachers, server_round)
        self.state.moved = True
        self.state.weights, self.record.distillation_loss = distilled
        self.record.seconds["distill"] = time.monotonic() - began

    def _acknowledge(self, accepted: list[Accepted], server_round: int) -> None:
        assert self._expected is not None
        for one in accepted:
            self.roster.acknowledge(one.site, server_round, self._expected.replica.version)
            if one.note:
                self._tell(one.site, one.note)
        self.admission.remember(accepted)
        self.state.norms = self.admission.norms
        self.state.embedding_sums = {one.site: one.sums for one in accepted if one.sums}
        self.state.aggregated += 1


def _feedback_text(config: Config) -> str:
    if config.feedback_in_use:
        return "with error feedback" + (" and predictor" if config.predictor_in_use else "")
    text = "without error feedback" + (", with predictor" if config.predictor_in_use else "")
    if config.uplink.feedback and not config.sends_models:
        share, codec = config.federation.participation, config.uplink.codec
        why = f"federation.participation {share:g} is below a half" if share < 0.5 else f"{codec} would owe without end"
        if config.aggregation.kind == "none":
            why = "without aggregation rounds do not add up"
        text += f" ({why}: {'unbiased scale' if codec in SCALED_CODECS else 'nothing else changes'}, no residual)"
    return text


def _codec_text(codec: Codec) -> str:
    return f"{codec.name} at {codec.bits} bit{', water-filling' if getattr(codec, 'waterfill', False) else ''}"


def _to_arrays(weights: Tensor) -> ArrayRecord:
    return ArrayRecord({TRAVELLING: Array(weights.numpy())})


def _from_arrays(arrays: ArrayRecord) -> Tensor:
    return torch.from_numpy(arrays[TRAVELLING].numpy().copy())
