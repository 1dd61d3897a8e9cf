"""The settings of a run: one strict, frozen tree, each field with its sentence below it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedsense_core.errors import ConfigError

AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""TOML and JSON know lists only."""


def _band_names(value: Any) -> Any:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError('give names of bands, such as "red,green,blue", or "all"')
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"band {twice!r} appears twice")
    return "all" if list(names) == ["all"] else tuple(names)


BandNames = BeforeValidator(_band_names)
"""A list, or one string with commas: Flower's run config carries no lists."""
SCALED_CODECS = ("eden", "trellis")
"""Codecs with a second scale, which makes them unbiased where nothing carries over what they lose."""
UNBIASED_CODECS = ("qsgd", "ternary")
"""Codecs whose error may exceed what they code: with feedback they would owe more and more (Karimireddy et al.
2019)."""
FREE_KEYS = (
    "run.folder",
    "run.resume",
    "run.report",
    "run.keep_checkpoints",
    "federation.min_clients",
    "federation.quorum",
    "federation.wait_s",
    "federation.deadline_s",
)
"""Settings that a continued run may change: where it is written, and whom it waits for."""


class Section(BaseModel):
    """A strict, frozen group of settings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RunSection(Section):
    """How long the run is and where it is written."""

    rounds: int = Field(8, ge=1)
    """Rounds of federated training."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, batches, augmentations and codec rotations."""
    folder: str = "auto"
    """Run folder, an absolute path; ``auto`` is ``~/.fedsense/runs/<preset>-seed<seed>``."""
    resume: Literal["auto", "never"] = "auto"
    """``auto`` continues an unfinished run with the same configuration; ``never`` refuses an existing folder."""
    evaluate_every: int = Field(2, ge=0)
    """Probe the encoder every E rounds and after the last; 0 never."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that stay on disk."""
    report: bool = True
    """Write report.html at the end."""


class FederationSection(Section):
    """Who takes part, and when a round counts."""

    participation: float = Field(1.0, gt=0, le=1)
    """Share of the available clients asked in each round."""
    min_clients: int = Field(1, ge=1)
    """Clients that must be connected before a round begins."""
    quorum: int = Field(1, ge=1)
    """Accepted replies below which the round changes nothing."""
    wait_s: float = Field(600.0, ge=0)
    """Seconds to wait for ``min_clients`` before giving up."""
    deadline_s: float = Field(3600.0, gt=0)
    """Seconds after which a round goes on without the replies that are missing."""
    only: str = ""
    """Name of the one site that trains (``standalone``); empty: everybody."""
    pooled: bool = False
    """One client opens every site file (``centralised``; simulation only)."""
    sites: str = "sample"
    """Simulation: folder of site files, one per SuperNode in name order; ``sample`` is the shipped federation."""
    public: str = "sample"
    """Site file of the public imagery, read by the server; ``sample`` is the shipped set."""
    labelled: str = "sample"
    """Folder of the labelled set for the probes, read by the server; ``sample`` is the shipped set, empty is none."""


class ModelSection(Section):
    """What is trained."""

    architecture: str = "resnet18"
    """timm model name."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model``; JSON types only, they are exported with the encoder."""
    stem: Literal["auto", "plain", "wavelength"] = "auto"
    """What reads the bands: ``plain`` is timm's own convolution; ``wavelength`` makes the kernel of each band from its
    wavelength or polarisation; ``auto`` is ``wavelength`` where ``data.bands`` is ``all``."""
    band_kernels: int = Field(16, ge=1)
    """Kernels that are mixed into that of a band (wavelength)."""
    projector: Annotated[tuple[int, int], AsTuple] = (256, 64)
    """Hidden and output width of the projection head."""
    decoder_width: int = Field(96, ge=8)
    """Width of the masked-image decoder of ViTs."""
    decoder_depth: int = Field(1, ge=1)
    """Transformer blocks of the masked-image decoder of ViTs."""
    local_parameters: Annotated[tuple[str, ...], AsTuple] = ()
    """Globs of parameter names that never leave the client."""


class DataSection(Section):
    """What the model sees."""

    bands: Annotated[Literal["all"] | tuple[str, ...], BandNames] = ("red", "green", "blue")
    """Bands read from every sensor, by name, as a list or a text with commas; ``all``: from each sensor all that it
    has."""
    chip_size: int = Field(64, ge=8)
    """Side of the chips cut from the rasters, pixels."""
    view_size: int = Field(48, ge=8)
    """Side of the views the model trains on, pixels."""
    min_scale: float = Field(0.3, gt=0, le=1)
    """Smallest share of a chip's area that a view shows."""
    jitter: float = Field(0.5, ge=0)
    """Strength of gain and offset changes; 0 turns them off."""
    blur: float = Field(0.0, ge=0, le=1)
    """Probability that a view is blurred (simclr)."""
    noise: float = Field(0.0, ge=0)
    """Largest deviation of white noise on a view, in deviations of the band (simclr)."""
    drop_bands: float = Field(0.0, ge=0, le=1)
    """Probability that some bands of a view, never all, are replaced by their mean (simclr)."""
    share_statistics: bool = False
    """Ask institutions for counts of pixel values by sensor and band, which are merged and exported with the encoder.
    Only those whose site file says ``share_statistics = true`` send them."""


class PartitionSection(Section):
    """Studies in simulation: how imagery is shared out among clients."""

    kind: Literal["sites", "iid", "blocks", "sensor", "dirichlet"] = "sites"
    """``sites``: one client for each site file; the others share all imagery out anew: at random, by region blocks, by
    sensor, or with mixes of classes drawn from a Dirichlet distribution."""
    clients: int = Field(8, ge=1)
    """Clients among whom all imagery is shared out (all kinds but ``sites``)."""
    tail: float = Field(0.0, ge=0)
    """Sizes fall as rank^-tail from client to client: 0 equal, 1 as in Zipf's law (all kinds but ``sites``)."""
    block_pixels: int = Field(512, ge=1)
    """Side of a region block in pixels of its scene (blocks, sensor)."""
    alpha: float = Field(0.5, gt=0)
    """Concentration of the mixes: large, all clients are alike; small, each has few classes (dirichlet)."""
    by: Literal["cluster", "label"] = "cluster"
    """Classes: ``label`` is the name of the folder that a scene's file lies in, ``cluster`` what a chip looks like."""
    clusters: int = Field(10, ge=2)
    """Clusters that are told apart (by ``cluster``)."""


class TrainSection(Section):
    """Local training."""

    recipe: Literal["simclr", "mae"] = "simclr"
    """Self-supervised loss."""
    local_steps: int = Field(16, ge=1)
    """Optimiser steps a client makes in a round (K)."""
    batch_size: int = Field(64, ge=2)
    """Chips in a batch."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay, towards the unshifted weights."""
    epsilon: float = Field(1e-8, gt=0)
    """ε of AdamW."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of all steps of the run with a rising learning rate; a cosine follows."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the contrastive loss."""
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of patches hidden from the encoder (mae)."""
    band_subset: float = Field(0.5, ge=0, le=1)
    """Probability that a batch shows only a random subset of its bands; wavelength stems only."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 autocast on CUDA and fp32 on the CPU."""


class GuidanceSection(Section):
    """Server-to-clients guidance (DESIGN, section 4)."""

    kind: Literal["none", "shift", "sam", "mixed", "sam-every-k"] = "shift"
    """Where the local gradient is taken."""
    radius: float = Field(0.1, ge=0)
    """r: radius of a tensor's shift relative to the norm of its last aggregated update."""
    direction: Literal["momentum", "random"] = "momentum"
    """``random`` is the control: a direction that means nothing."""
    sign: Literal[-1, 0, 1] = 1
    """1 looks from the sharp side; 0 and -1 are controls."""
    ramp: float = Field(0.1, ge=0, le=1)
    """Share of the rounds over which the radius rises to its value."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """β of the momentum of global updates."""
    mix: float = Field(0.5, ge=0, le=1)
    """``mixed``: weight of the global direction beside the local gradient."""
    every: int = Field(5, ge=1)
    """``sam-every-k``: local ascent on every k-th step only."""


class AlignmentSection(Section):
    """Keeping representations near the universal encoder's."""

    weight: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """μ; ``auto`` is 0.5 for contrastive recipes and 0.1 for masked images; 0 saves the second forward pass."""
    target: Literal["global", "shifted"] = "global"
    """Whether the anchor is ŵ or the shifted start."""


class CodecSection(Section):
    """How a vector is coded."""

    codec: Literal["none", "bf16", "eden", "trellis", "sign", "qsgd", "ternary", "topk", "float8", "int8"] = "eden"
    """Codec name."""
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 1
    """Bits per parameter (eden, topk; trellis up to 4, qsgd from 2)."""
    state_bits: Literal[8, 10, 12] = 8
    """trellis: bits of state; each one more halves the speed of encoding."""
    waterfill: bool = False
    """Deal the bits out over the tensors of each vector, where they remove the most error (eden, trellis)."""


class UplinkSection(CodecSection):
    """Client to server."""

    feedback: bool = True
    """Carry what the codec lost over to the next round; off below half participation, where it would be stale."""
    predictor: bool = False
    """Code the update less γ_l m̂_l, the part of it that server and clients both expect from earlier rounds."""


class DownlinkSection(CodecSection):
    """Server to client."""

    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 4
    """Bits per parameter (eden, topk; trellis up to 4, qsgd from 2)."""


class OuterSection(Section):
    """What the server does with the mean update."""

    kind: Literal["fedavg", "nesterov"] = "fedavg"
    """``fedavg`` adds it; ``nesterov`` is the outer optimiser of DiLoCo (arXiv 2311.08105)."""
    learning_rate: float = Field(0.7, gt=0)
    """nesterov: step size."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """nesterov: momentum."""


class DistillationSection(Section):
    """Clients-to-server guidance on public imagery (DESIGN, section 6)."""

    kind: Literal["none", "similarity", "public-ssl", "self"] = "similarity"
    """``public-ssl`` (plain self-supervision, equal steps) and ``self`` (the mean as its own teacher) are controls."""
    steps: int = Field(10, ge=1)
    """Optimiser steps a round."""
    batch_size: int = Field(128, ge=4)
    """Public chips in a batch."""
    learning_rate_factor: float = Field(0.1, gt=0)
    """Learning rate relative to the clients'."""
    teacher_temperature: float = Field(0.07, gt=0)
    """τ_T."""
    student_temperature: float = Field(0.1, gt=0)
    """τ_S."""
    public_weight: float = Field(0.0, ge=0)
    """λ_pub: weight of the self-supervised loss on the same public batch."""


class AdmissionSection(Section):
    """What a reply must satisfy to count."""

    max_examples: int = Field(10_000_000, ge=1)
    """Largest example count a client may claim for one round."""
    norm_factor: float = Field(10.0, gt=1)
    """Largest update norm relative to the median of those accepted in earlier rounds."""
    first_round_max_norm: float = Field(1_000.0, gt=0)
    """Largest update norm while nothing has been accepted yet."""


class Config(Section):
    """Everything a run is told."""

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
    uplink: UplinkSection = UplinkSection()
    downlink: DownlinkSection = DownlinkSection()
    outer: OuterSection = OuterSection()
    distillation: DistillationSection = DistillationSection()
    admission: AdmissionSection = AdmissionSection()

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

    @property
    def conditioned(self) -> bool:
        """Whether one model reads any bands: kernels are made from what each band is."""
        return self.model.stem == "wavelength" or (self.model.stem == "auto" and self.data.bands == "all")

    @property
    def total_steps(self) -> int:
        """Local steps of the whole run, over which the learning rate is scheduled."""
        return self.run.rounds * self.train.local_steps

    @property
    def sends_models(self) -> bool:
        """True where full models travel both ways and the round is plain FedAvg, bit for bit."""
        return (
            self.uplink.codec == self.downlink.codec == "none"
            and self.guidance.kind != "shift"
            and self.outer.kind == "fedavg"
        )

    @property
    def alignment_weight(self) -> float:
        """μ as used."""
        if self.alignment.weight == "auto":
            return 0.1 if self.train.recipe == "mae" else 0.5
        return self.alignment.weight

    @property
    def momentum_in_use(self) -> float | None:
        """β of m̂, or None where nothing looks at m̂, which then need not travel to clients that lag."""
        in_use = self.guidance.kind in ("shift", "mixed") or self.predictor_in_use
        return self.guidance.momentum if in_use else None

    @property
    def predictor_in_use(self) -> bool:
        """Whether updates are coded less their prediction; nothing is gained where no codec loses anything."""
        return self.uplink.predictor and not self.sends_models and self.uplink.codec != "none"

    @property
    def feedback_in_use(self) -> bool:
        """Whether clients carry a residual. Below half participation it would go stale between a client's rounds."""
        able = not self.sends_models and self.uplink.codec not in UNBIASED_CODECS
        return self.uplink.feedback and able and self.federation.participation >= 0.5

    @property
    def digest(self) -> str:
        """Hex name of all settings but the free ones."""
        settings = self.model_dump(mode="json")
        for section, key in (name.split(".") for name in FREE_KEYS):
            del settings[section][key]
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
