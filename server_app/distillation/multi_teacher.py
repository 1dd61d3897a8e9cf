"""``multi-teacher``: the clients' features, weighted for each chip, after FedMKD (Li et al.
2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from server_app.distillation.objective import Objective, Step, normalised


class MultiTeacher(Objective):
    """Each chip finds the clients' joint features of it among those of the batch."""

    name = "multi-teacher"
    teachers = "clients"
    compares_heads = True

    def distance(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar."""
        z_BD = step.represent(step.student.model, step.parts)
        predictor = step.student.model.predictor if step.projects else None
        z_BD = normalised(z_BD if predictor is None else predictor(z_BD))
        teachers_nBD = step.teacher_features()
        weights_Bn = attention(z_BD, teachers_nBD, self.settings.teacher_temperature)
        return contrast(z_BD, integrated(weights_Bn, teachers_nBD), self.settings.student_temperature)


def attention(z_BD: Tensor, teachers_nBD: Tensor, temperature: float) -> Tensor:
    """Return the weight of each client for each chip (B, n): softmax over clients of <z, R_i>/τ_T.

    The adaptive knowledge integration of FedMKD (openreview.net/forum?id=Of4iNAIUSe), whose code
    maps z and R_i by learned layers first; here they are compared as they are. Constant: no
    gradient.
    """
    return (torch.einsum("bd,nbd->bn", z_BD.detach(), teachers_nBD) / temperature).softmax(dim=1)


def integrated(weights_Bn: Tensor, teachers_nBD: Tensor) -> Tensor:
    """Return the clients' joint features, normalised Σ_i a_i R_i (B, D)."""
    return F.normalize(torch.einsum("bn,nbd->bd", weights_Bn, teachers_nBD), dim=1)


def contrast(z_BD: Tensor, target_BD: Tensor, temperature: float) -> Tensor:
    """Return the cross entropy of each chip finding its own target among those of the batch
    (InfoNCE)."""
    return F.cross_entropy(z_BD @ target_BD.T / temperature, torch.arange(len(z_BD), device=z_BD.device))
