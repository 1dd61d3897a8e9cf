"""What a run leaves behind after every round: a probe, a line of metrics, a block in the terminal,
a checkpoint; and after the last one the models themselves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from logging import WARNING
from typing import Any

import torch
from flwr.common.logger import log
from safetensors import SafetensorError

from fedsense_core.config import Config
from fedsense_core.data.chips.labelled import LabelledSet
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.data.sites.sensors import Band
from fedsense_core.encoder import export_encoder
from fedsense_core.evaluation.probes import probe
from fedsense_core.models.pretraining import encoder_args
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.snapshots import keep_models
from server_app.checkpoints import Checkpoints
from server_app.record import RoundRecord
from server_app.strategy import FedSense

Show = Callable[[dict[str, Any]], None]


@dataclass
class Recorder:
    """Called by the strategy when a round is over."""

    config: Config
    run: RunFolder
    checkpoints: Checkpoints
    labelled: LabelledSet | None
    show: Show
    spectrum: tuple[Band, ...] = ()
    """Bands of the exported encoder where the model reads any."""
    statistics: SensorStatistics = field(default_factory=SensorStatistics)
    """Of the public set."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def before_first_round(self, strategy: FedSense) -> None:
        """Probe the random weights that every later figure is shown beside."""
        line: dict[str, Any] = {"round": 0, "probe": self._probe(strategy)}
        self.run.append_metrics(line)
        self.show(line)

    def __call__(self, record: RoundRecord, strategy: FedSense) -> None:
        """Record a finished round. The checkpoint comes last: what is in it has its line."""
        began = time.monotonic()
        due = self._is_due(record.round)
        scores = self._probe(strategy) if due else None
        record.seconds["evaluate"] = time.monotonic() - began
        record.seconds["total"] = record.seconds.get("total", 0.0) + record.seconds["evaluate"]
        line = record.line(self.config.alignment_weight, scores)
        self.run.append_metrics(line)
        self.show(line)
        # Before the checkpoint, after which nothing repeats the round.
        self._keep_models(record, strategy)
        strategy.state.norms = strategy.admission.norms
        self.checkpoints.save(strategy.state)

    def export(self, strategy: FedSense) -> None:
        """Write the encoder with w (not the quantized replica) where plain timm loads it.

        Every sensor was standardised by its own statistics, so the encoder's own mean is 0 and its
        deviation 1; those of the public set, and of the institutions that share theirs, go with it.
        """
        strategy.table.write(strategy.state.weights, strategy.model)
        model, data = self.config.model, self.config.data
        bands = self.spectrum if self.config.conditioned else data.bands
        statistics = reduce(SensorStatistics.merge, strategy.state.statistics.values(), self.statistics)
        export_encoder(
            strategy.model.encoder.to("cpu"),
            self.run.encoder,
            architecture=model.architecture,
            model_args=encoder_args(model.architecture, len(bands), data.view_size, model.args),
            bands=bands,
            mean=[0.0] * len(bands),
            std=[1.0] * len(bands),
            image_size=data.view_size,
            extra={"preset": self.config.preset, "recipe": self.config.train.recipe, "rounds": strategy.state.round},
            statistics=statistics.summary(),
        )

    def _keep_models(self, record: RoundRecord, strategy: FedSense) -> None:
        """Write the models of the last round, decoding one client's update at a time.

        A full disk does not end the run for want of them.
        """
        replica = strategy.state.replica
        if record.round != self.config.run.rounds or not self.config.run.keep_models or replica is None:
            return
        start = replica.weights
        clients = ((one.site, start + one.update()) for one in record.accepted)
        try:
            keep_models(self.run.models, strategy.table, start=start, final=strategy.state.weights, clients=clients)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.run.models, ignore_errors=True)  # of a round that was cut short and is repeated
            log(WARNING, "the models of the last round are not kept for `fedsense analyse`: %s", error)

    def _is_due(self, server_round: int) -> bool:
        every = self.config.run.evaluate_every
        return bool(every) and (server_round % every == 0 or server_round == self.config.run.rounds)

    def _probe(self, strategy: FedSense) -> dict[str, float] | None:
        if self.labelled is None or not self.config.run.evaluate_every:
            return None
        strategy.table.write(strategy.state.weights, strategy.model)
        encoder = strategy.model.encoder_for(self.labelled.spectrum).to(self.device)
        return probe(encoder, self.labelled, self.config.data.view_size, self.device).as_dict()
