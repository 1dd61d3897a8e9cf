"""What clients do: local training, its guidance and alignment, and what a client keeps of its own
model."""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import Field

from fedsense_core.section import Section
from fedsense_core.ssl.settings import RecipeSettings


class TrainSection(RecipeSettings):
    """Local training."""

    local_steps: int = Field(16, ge=1, le=100_000)
    """Optimiser steps a client makes in a round (K)."""
    batch_size: int = Field(64, ge=2, le=65_536)
    """Chips in a batch."""
    optimiser: Literal["adamw", "sgd", "muon"] = "adamw"
    """Inner optimiser; ``muon`` orthogonalises the momentum of matrices and kernels and leaves the
    rest, and the first and last layers, to AdamW."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum (sgd); Muon has its own of 0.95."""
    learning_rate: float = Field(4e-3, gt=0, le=1000)
    """Peak learning rate."""
    weight_decay: float = Field(0.05, ge=0, le=1000)
    """Decoupled weight decay, towards the unshifted weights."""
    epsilon: float = Field(1e-8, gt=0, le=1)
    """ε of AdamW (adamw, muon)."""
    proximal: float = Field(0.0, ge=0, le=1_000_000)
    """μ of FedProx: half of it times the squared distance to the global model joins the loss."""
    global_momentum: float = Field(0.0, ge=0, lt=1)
    """Share of every local step that repeats the last global update (MoFedSAM); that update is
    exact where ``guidance.momentum`` is 0, else a moving average of the last ones."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of all steps of the run with a rising learning rate; a cosine follows."""
    band_subset: float = Field(0.5, ge=0, le=1)
    """Probability that a batch shows only a random subset of its bands; wavelength stems only."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 autocast on CUDA and fp32 on the CPU. ``fp32`` is float32 throughout,
    without the TF32 in which torch would convolve on CUDA."""


class GuidanceSection(Section):
    """Server-to-clients guidance (`docs/method.md`, section 4)."""

    kind: Literal["none", "shift", "sam", "mixed", "sam-every-k"] = "shift"
    """Where the local gradient is taken."""
    radius: float = Field(0.1, ge=0, le=1_000_000)
    """r: radius of the perturbation, as ``guidance.scale`` measures it."""
    scale: Literal["update", "absolute"] = "update"
    """``update``: each tensor's radius is r times the norm of its last aggregated update;
    ``absolute``: r is the norm of the perturbation of all tensors together, as in SAM."""
    direction: Literal["momentum", "random"] = "momentum"
    """``random`` is the control: a direction that means nothing."""
    sign: Literal[-1, 0, 1] = 1
    """1 starts on the sharp side; 0 and -1 are controls."""
    ramp: float = Field(0.1, ge=0, le=1)
    """Share of the rounds over which the radius rises to its value, from 0 in round 1; with 0, an
    absolute radius is full from round 1 on."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """β of the momentum of global updates."""
    mix: float = Field(0.5, ge=0, le=1)
    """``mixed``: weight of the global direction beside the local gradient."""
    every: int = Field(5, ge=1, le=100_000)
    """``sam-every-k``: local ascent on every k-th step only."""

    @property
    def shifts_start(self) -> bool:
        """Whether clients start away from the global model and take no further pass."""
        match self.kind:
            case "shift":
                return True
            case "none" | "sam" | "mixed" | "sam-every-k":
                return False
            case unknown:
                assert_never(unknown)

    @property
    def uses_global_direction(self) -> bool:
        """Whether the gradient is taken along m̂, which clients then need."""
        match self.kind:
            case "shift" | "mixed":
                return True
            case "none" | "sam" | "sam-every-k":
                return False
            case unknown:
                assert_never(unknown)

    @property
    def climbs_own_gradient(self) -> bool:
        """Whether the perturbation is along the client's own gradient alone."""
        match self.kind:
            case "sam" | "sam-every-k":
                return True
            case "none" | "shift" | "mixed":
                return False
            case unknown:
                assert_never(unknown)


class AlignmentSection(Section):
    """Keeping representations near the universal encoder's."""

    kind: Literal["representation", "cross"] = "representation"
    """``representation``: distance of pooled or projected features; ``cross``: the cross
    distillation of FedX (simclr and byol)."""
    weight: Literal["auto"] | Annotated[float, Field(ge=0, le=1_000_000)] = "auto"
    """μ; ``auto`` is 0.5 for contrastive recipes and 0.1 for masked images; 0 saves the second
    forward pass."""
    target: Literal["global", "shifted"] = "global"
    """Whether the anchor is ŵ or the shifted start."""

    @property
    def relates_two_views(self) -> bool:
        """Whether it needs two views of each chip, and predictions of one from the other."""
        match self.kind:
            case "representation":
                return False
            case "cross":
                return True
            case unknown:
                assert_never(unknown)


class PersonalisationSection(Section):
    """What a client keeps of its own model when a new global one arrives."""

    kind: Literal["none", "predictor", "average"] = "none"
    """``predictor``: its own predictor where the models are far apart (FedU; byol only);
    ``average``: a moving average of both, by their distance (FedEMA)."""
    threshold: float = Field(0.4, ge=0, le=1_000_000)
    """Distance of the encoders, averaged over their matrices and kernels, from which on the
    client's predictor stays (predictor)."""
    scaler: float = Field(0.7, ge=0, le=1_000_000)
    """τ of FedEMA: share that a client keeps in its second round, from which λ follows
    (average)."""

    @property
    def keeps_predictor(self) -> bool:
        """Whether it is about the predictor, which not every recipe has."""
        match self.kind:
            case "predictor":
                return True
            case "none" | "average":
                return False
            case unknown:
                assert_never(unknown)
