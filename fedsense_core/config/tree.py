"""The whole tree of settings of a run, and what follows from several of them together."""

from __future__ import annotations

import hashlib
import json
from typing import assert_never

from pydantic import model_validator

from fedsense_core.config.imagery import DataSection, ModelSection, PartitionSection
from fedsense_core.config.local_training import AlignmentSection, GuidanceSection, PersonalisationSection, TrainSection
from fedsense_core.config.run import AdmissionSection, FederationSection, RunSection
from fedsense_core.config.server import (
    AggregationSection,
    DistillationSection,
    DownlinkSection,
    OuterSection,
    UplinkSection,
)
from fedsense_core.errors import ConfigError
from fedsense_core.section import Section

FREE_KEYS = (
    "run.folder",
    "run.resume",
    "run.report",
    "run.keep_checkpoints",
    "run.keep_models",
    "federation.min_clients",
    "federation.quorum",
    "federation.wait_s",
    "federation.deadline_s",
    "federation.retries",
    "federation.pause_s",
    "federation.late_factor",
)
"""Settings that a continued run may change: where it is written, and whom it waits for."""
LATER_KEYS = (
    *FREE_KEYS,
    "run.rounds",
    "run.rounds_before",
    "run.continued_from",
    "run.evaluate_every",
    "federation.sites",
    "federation.public",
    "federation.labelled",
    "train.learning_rate",
    "train.warmup",
)
"""Settings that may differ from those of the finished run that a run goes on from: how long, how
fast, and where imagery lies."""


class Config(Section):
    """All settings of a run."""

    preset: str = "fedsense"
    """Named method; see ``presets.py``."""
    run: RunSection = RunSection()
    federation: FederationSection = FederationSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    partition: PartitionSection = PartitionSection()
    train: TrainSection = TrainSection()
    guidance: GuidanceSection = GuidanceSection()
    alignment: AlignmentSection = AlignmentSection()
    personalisation: PersonalisationSection = PersonalisationSection()
    uplink: UplinkSection = UplinkSection()
    downlink: DownlinkSection = DownlinkSection()
    aggregation: AggregationSection = AggregationSection()
    outer: OuterSection = OuterSection()
    distillation: DistillationSection = DistillationSection()
    admission: AdmissionSection = AdmissionSection()

    @model_validator(mode="after")
    def _rounds_are_left(self) -> Config:
        before, run = self.run.rounds_before, self.run
        if bool(before) != bool(run.continued_from) or before >= run.rounds:
            raise ConfigError(
                f"wrong configuration: run.continued_from = {run.continued_from!r}, run.rounds_before = {before} and "
                f"run.rounds = {run.rounds} do not go together. A run that goes on from a finished one of 6 rounds for "
                "4 more has that run's folder, 6 and 10; any other run leaves the first two alone"
            )
        return self

    @model_validator(mode="after")
    def _stem_reads_the_bands(self) -> Config:
        if self.data.bands == "all" and self.model.stem == "plain":
            # Not a ValueError: pydantic would wrap it and show the whole tree as the wrong value.
            raise ConfigError(
                "wrong configuration: model.stem = 'plain' reads one fixed list of bands, but data.bands = 'all' gives "
                "other bands for each sensor. Name the bands, such as data.bands = 'red,green,blue', or leave "
                "model.stem at 'auto'"
            )
        return self

    @model_validator(mode="after")
    def _something_moves_the_model(self) -> Config:
        if self.aggregation.averages:
            return self
        if not self.distillation.moves_the_model:
            raise ConfigError(
                "wrong configuration: aggregation.kind = 'none' leaves it to distillation to move the model, "
                f"and distillation.kind = {self.distillation.kind!r} brings nothing new. Use distillation.kind = "
                "'ensemble' or 'public-ssl', or aggregation.kind = 'mean'"
            )
        if not self.outer.adds_the_mean:
            raise ConfigError(
                f"wrong configuration: outer.kind = {self.outer.kind!r} steps along the mean of updates, which "
                "aggregation.kind = 'none' does not make. Use outer.kind = 'fedavg', or aggregation.kind = 'mean'"
            )
        return self

    @model_validator(mode="after")
    def _a_mean_to_weigh(self) -> Config:
        if self.aggregation.counts_chips and self.aggregation.kind != "mean":
            raise ConfigError(
                f"wrong configuration: aggregation.weights = {self.aggregation.weights!r} weighs the clients of a "
                f"mean; aggregation.kind = {self.aggregation.kind!r} has weights of its own, or no mean. Use "
                "aggregation.kind = 'mean', or leave aggregation.weights at 'equal'"
            )
        return self

    @model_validator(mode="after")
    def _enough_to_bear_attackers(self) -> Config:
        least, aggregation = self.aggregation.least_clients, self.aggregation
        if self.federation.quorum < least:
            raise ConfigError(
                f"wrong configuration: aggregation.kind = {aggregation.kind!r} bears aggregation.byzantine = "
                f"{aggregation.byzantine} attackers in a round of at least {least} replies, but federation.quorum = "
                f"{self.federation.quorum}: set it to {least} or more, or name fewer attackers"
            )
        return self

    @model_validator(mode="after")
    def _guidance_has_what_its_controls_change(self) -> Config:
        guidance = self.guidance
        if guidance.climbs_own_gradient and (guidance.sign < 0 or guidance.direction == "random"):
            raise ConfigError(
                f"wrong configuration: guidance.kind = {guidance.kind!r} climbs along each client's own gradient, "
                f"which guidance.sign = {guidance.sign} and guidance.direction = {guidance.direction!r} would not "
                "change. Use guidance.kind = 'shift' or 'mixed', or leave them at 1 and 'momentum'"
            )
        return self

    @model_validator(mode="after")
    def _two_views_to_relate(self) -> Config:
        if self.alignment.relates_two_views and not self.train.traits.contrasts_two_views:
            raise ConfigError(
                f"wrong configuration: alignment.kind = 'cross' relates two views of a chip as FedX does, which "
                f"train.recipe = {self.train.recipe!r} does not contrast. Use 'simclr' or 'byol', or alignment.kind = "
                "'representation'"
            )
        return self

    @model_validator(mode="after")
    def _a_predictor_to_keep(self) -> Config:
        if self.personalisation.keeps_predictor and not self.train.traits.needs_predictor:
            raise ConfigError(
                "wrong configuration: personalisation.kind = 'predictor' keeps the predictor of byol, which "
                f"train.recipe = {self.train.recipe!r} does not have. Use train.recipe = 'byol', or "
                "personalisation.kind = 'average'"
            )
        return self

    @model_validator(mode="after")
    def _a_regulariser_to_share(self) -> Config:
        if self.train.federated_sigreg and not self.train.traits.has_sigreg:
            raise ConfigError(
                "wrong configuration: train.federated_sigreg = true shares the sums that the regulariser of lejepa is "
                f"made of, which train.recipe = {self.train.recipe!r} does not have. Use train.recipe = 'lejepa', or "
                "leave train.federated_sigreg at false"
            )
        return self

    @property
    def conditioned(self) -> bool:
        """Whether one model reads any bands: kernels are made from what each band is."""
        match self.model.stem:
            case "wavelength":
                return True
            case "plain":
                return False
            case "auto":
                return self.data.bands == "all"
            case unknown:
                assert_never(unknown)

    @property
    def total_steps(self) -> int:
        """Local steps of the run's own rounds, over which the learning rate is scheduled."""
        return (self.run.rounds - self.run.rounds_before) * self.train.local_steps

    @property
    def steps_before(self) -> int:
        """Local steps of the run that this one goes on from; global steps are counted on."""
        return self.run.rounds_before * self.train.local_steps

    @property
    def asks_clients(self) -> bool:
        """Whether anything that clients do reaches the model; where it does not, they are left
        alone."""
        return self.aggregation.averages or self.distillation.asks_clients

    @property
    def sends_models(self) -> bool:
        """True where full models travel both ways and the round is plain FedAvg, bit for bit."""
        return (
            self.uplink.codec == self.downlink.codec == "none"
            and not self.guidance.shifts_start
            and self.outer.adds_the_mean
        )

    @property
    def alignment_weight(self) -> float:
        """μ as used."""
        weight = self.alignment.weight
        return self.train.traits.alignment_weight if weight == "auto" else weight

    @property
    def needs_teacher(self) -> bool:
        """Whether the recipe learns from a moving average of the model."""
        return self.train.traits.needs_teacher

    @property
    def momentum_in_use(self) -> float | None:
        """β of m̂, or None where nothing uses m̂, which then need not travel to clients that
        lag."""
        guided = self.guidance.uses_global_direction or self.train.global_momentum > 0
        in_use = guided or self.prediction_in_use
        return self.guidance.momentum if in_use else None

    @property
    def prediction_in_use(self) -> bool:
        """Whether updates are coded less their prediction; nothing is gained where no codec loses
        anything."""
        return self.uplink.prediction and not self.sends_models and self.uplink.codec != "none"

    @property
    def feedback_in_use(self) -> bool:
        """Whether clients carry a residual.

        Below half participation it would go stale between a client's rounds. Without aggregation no
        sum of updates makes up for what was lost: the residual of one model would only blur the
        next one that a client sends.
        """
        # Here, because it takes a second that listing settings does not need.
        from fedsense_core.codecs.codec import codec_class

        able = not self.sends_models and codec_class(self.uplink.codec).feedback_allowed
        adds_up = self.aggregation.averages and self.federation.participation >= 0.5
        return self.uplink.feedback and able and adds_up

    @property
    def digest(self) -> str:
        """Hex name of all settings but the free ones."""
        settings = self.model_dump(mode="json")
        for section, key in (name.split(".") for name in FREE_KEYS):
            del settings[section][key]
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
