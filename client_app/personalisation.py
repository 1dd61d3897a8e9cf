"""Personalisation: what stays of a client's own models when a new global one arrives (FedU, FedEMA,
and the teacher of BYOL).

What is kept is kept without the round's shift, which is added anew. Shapes: N as in
``fedsense_core.tensors``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from fedsense_core.config import Config, PersonalisationSection
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.ssl.teacher import MovingTeacher
from fedsense_core.tensors import TensorTable, vector_norm

ENCODER, PREDICTOR = "encoder.", "predictor."


@dataclass(frozen=True)
class PersonalModels:
    """Empty where the method keeps none, and after a state was lost: the client then starts from
    the global model."""

    trained: Tensor | None = None
    """The client's model after its last round (N,)."""
    scaler: float | None = None
    """λ of FedEMA, once it was measured."""
    teacher: dict[str, Tensor] = field(default_factory=dict)
    """The moving average, by parameter."""


@dataclass(frozen=True)
class PersonalisedStart:
    """The model from which a client starts, before the shift."""

    weights: Tensor
    """(N,)."""
    share: float
    """Part that is the client's own, of the tensors that it keeps."""
    scaler: float | None = None
    """λ as it is now."""


def divergence(one: Tensor, other: Tensor, table: TensorTable) -> float:
    """Return the Euclidean distance of two models (N,), averaged over the encoder's matrices and
    kernels.

    The papers write the norm of all together; public code of FedU, for which its threshold is
    meant, averages over kernels. FedEMA sees only ratios.
    """
    views = zip(table.views(one), table.views(other), strict=True)
    matrices = [(a, b) for (spec, a), (_, b) in views if spec.name.startswith(ENCODER) and len(spec.shape) > 1]
    return sum(vector_norm(a - b) for a, b in matrices) / max(1, len(matrices))


def personalised_start(
    settings: PersonalisationSection, weights: Tensor, own: PersonalModels, table: TensorTable
) -> PersonalisedStart:
    """Return the start of a round from the global ``weights`` (N,) and what the client kept.

    ``predictor`` (FedU, arXiv 2108.06492, divergence-aware predictor update): the client's
    predictor if its encoder is at least ``threshold`` from the global one, else all is global.
    ``average`` (FedEMA, arXiv 2204.04385): μ own + (1-μ) global with μ = min(1, λ d); λ = τ / d at
    the first distance d that is not 0, so that μ begins at τ.
    """
    unchanged = PersonalisedStart(weights, 0.0, own.scaler)
    match settings.kind:
        case "none":
            return unchanged
        case "predictor":
            return unchanged if own.trained is None else _own_predictor(settings, weights, own.trained, table)
        case "average":
            return unchanged if own.trained is None else _average(settings, weights, own.trained, own.scaler, table)
        case _:
            assert_never(settings.kind)


def _own_predictor(
    settings: PersonalisationSection, weights: Tensor, trained: Tensor, table: TensorTable
) -> PersonalisedStart:
    if divergence(weights, trained, table) < settings.threshold:
        return PersonalisedStart(weights, 0.0)
    mixed = weights.clone()
    for (spec, view), (_, own) in zip(table.views(mixed), table.views(trained), strict=True):
        if spec.name.startswith(PREDICTOR):
            view.copy_(own)
    return PersonalisedStart(mixed, 1.0)


def _average(
    settings: PersonalisationSection, weights: Tensor, trained: Tensor, scaler: float | None, table: TensorTable
) -> PersonalisedStart:
    distance = divergence(weights, trained, table)
    if distance == 0:
        return PersonalisedStart(weights, 0.0, scaler)
    scaler = settings.scaler / distance if scaler is None else scaler
    share = min(1.0, scaler * distance)
    return PersonalisedStart(share * trained + (1 - share) * weights, share, scaler)


@torch.no_grad()
def shifted_teacher(
    config: Config, model: PretrainingModel, shift: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> MovingTeacher | None:
    """Return the kept teacher at its shift, or a copy of ``model`` where none was kept; None where
    none is needed.

    ``model`` holds the shifted global model. The teacher sees what the loss sees, so it is shifted
    too.
    """
    if not config.needs_teacher:
        return None
    teacher = MovingTeacher(model, config.train.teacher_decay)
    for name, parameter in teacher.model.named_parameters():
        if name in kept:
            parameter.copy_(kept[name])
            if name in shift:
                parameter.add_(shift[name].to(parameter.device))
    return teacher


def unshifted(teacher: MovingTeacher | None, shift: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the teacher's parameters less the shift; it has no use for a predictor."""
    if teacher is None:
        return {}
    named = [(name, p.detach().cpu()) for name, p in teacher.model.named_parameters() if not name.startswith(PREDICTOR)]
    return {name: value - shift[name] if name in shift else value for name, value in named}
