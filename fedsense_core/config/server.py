"""What travels, and what the server makes of it: codecs, aggregation, outer optimiser,
distillation."""

from __future__ import annotations

import math
from typing import Literal, assert_never

from pydantic import Field

from fedsense_core.codecs.settings import CodecSection
from fedsense_core.section import Section


class UplinkSection(CodecSection):
    """Client to server."""

    feedback: bool = True
    """Carry what the codec lost over to the next round; off below half participation, where it
    would be stale, and without aggregation, where rounds do not add up."""
    prediction: bool = False
    """Code the update less γ_l m̂_l, the part of it that server and clients both expect from
    earlier rounds."""
    clip: float = Field(0.0, ge=0, le=1_000_000_000)
    """Largest Euclidean norm of an update before it is coded; what is longer is scaled down. 0 is
    no limit."""


class DownlinkSection(CodecSection):
    """Server to client."""

    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 4
    """Bits per parameter (eden, topk; trellis up to 4, qsgd from 2)."""


class AggregationSection(Section):
    """How the clients' updates become one."""

    kind: Literal["mean", "median", "trimmed-mean", "multi-krum", "l-dawa", "l-dawa-normalised", "none"] = "mean"
    """``mean``: by examples seen; ``median`` and ``trimmed-mean`` of each parameter, and
    ``multi-krum``, the mean without the replies that lie apart: rules that bear attackers;
    ``l-dawa``: each layer by its cosine to the global one; ``none``: the mean is not used, and
    distillation alone moves the model (FLESD, FedMKD, ``public-only``)."""
    clip: Literal["none", "median"] = "none"
    """``median``: an update that is longer than the median of its round counts as one of that
    length."""
    byzantine: int = Field(1, ge=0, le=10_000)
    """Clients of a round that may be attackers (median, trimmed-mean, multi-krum)."""
    plain_rounds: int = Field(2, ge=0, le=100_000)
    """Rounds of plain means before the cosines count (l-dawa, l-dawa-normalised)."""
    weights: Literal["equal", "chips", "sqrt-chips"] = "equal"
    """``mean``: what a client's examples are multiplied by: nothing, the number of chips that its
    institution says it has, or the square root of that."""

    @property
    def averages(self) -> bool:
        """Whether a mean of the clients' updates moves the model."""
        match self.kind:
            case "mean" | "median" | "trimmed-mean" | "multi-krum" | "l-dawa" | "l-dawa-normalised":
                return True
            case "none":
                return False
            case unknown:
                assert_never(unknown)

    @property
    def least_clients(self) -> int:
        """Replies below which the rule would not bear ``byzantine`` attackers."""
        match self.kind:
            case "median" | "trimmed-mean":
                return 2 * self.byzantine + 1
            case "multi-krum":
                return 2 * self.byzantine + 3
            case "mean" | "l-dawa" | "l-dawa-normalised" | "none":
                return 1
            case unknown:
                assert_never(unknown)

    def factor(self, chips: int) -> float:
        """Return what the examples of a client of so many chips are multiplied by."""
        match self.weights:
            case "equal":
                return 1.0
            case "chips":
                return float(chips)
            case "sqrt-chips":
                return math.sqrt(chips)
            case unknown:
                assert_never(unknown)

    @property
    def counts_chips(self) -> bool:
        """Whether anything depends on how many chips a client says it has."""
        return self.weights != "equal"


class OuterSection(Section):
    """What the server does with the mean update."""

    kind: Literal["fedavg", "nesterov"] = "fedavg"
    """``fedavg`` adds it; ``nesterov`` is the outer optimiser of DiLoCo (arXiv 2311.08105)."""
    learning_rate: float = Field(0.7, gt=0, le=1000)
    """nesterov: step size."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """nesterov: momentum."""

    @property
    def adds_the_mean(self) -> bool:
        """Whether the mean is added as it is, without a step of its own."""
        match self.kind:
            case "fedavg":
                return True
            case "nesterov":
                return False
            case unknown:
                assert_never(unknown)


class DistillationSection(Section):
    """Clients-to-server guidance on public imagery (`docs/method.md`, section 6)."""

    kind: Literal["none", "similarity", "ensemble", "multi-teacher", "public-ssl", "self"] = "similarity"
    """``similarity``: mean of the clients' similarity rows; ``ensemble``: that of FLESD;
    ``multi-teacher``: their features, weighted for each chip (FedMKD); ``public-ssl`` (plain
    self-supervision, equal steps) and ``self`` (the mean as its own teacher; set ``public_weight``
    to 0) are controls."""
    steps: int = Field(20, ge=1, le=100_000)
    """Optimiser steps a round."""
    batch_size: int = Field(128, ge=4, le=65_536)
    """Public chips in a batch."""
    learning_rate_factor: float = Field(0.3, gt=0, le=1000)
    """Learning rate relative to the clients'."""
    teacher_temperature: float = Field(0.07, gt=0, le=1000)
    """τ_T."""
    student_temperature: float = Field(0.1, gt=0, le=1000)
    """τ_S."""
    public_weight: float = Field(0.0, ge=0, le=1_000_000)
    """λ_pub: weight of the self-supervised loss on the same public batch."""

    @property
    def asks_clients(self) -> bool:
        """Whether the clients' encoders are teachers; the controls do without."""
        match self.kind:
            case "similarity" | "ensemble" | "multi-teacher":
                return True
            case "none" | "public-ssl" | "self":
                return False
            case unknown:
                assert_never(unknown)

    @property
    def moves_the_model(self) -> bool:
        """Whether the model learns anything from it that it does not hold already."""
        match self.kind:
            case "similarity" | "ensemble" | "multi-teacher" | "public-ssl":
                return True
            case "self":
                return self.public_weight > 0
            case "none":
                return False
            case unknown:
                assert_never(unknown)
