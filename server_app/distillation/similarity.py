"""``similarity``: the mean of the clients' similarity rows (docs/method.md, section 6)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from server_app.distillation.objective import Objective, Step, Teachers


class Similarity(Objective):
    """KL(Ā ‖ rowsoftmax(Z Zᵀ/τ_S)) with Ā = Σ a_i rowsoftmax(Z_i Z_iᵀ/τ_T)."""

    name = "similarity"
    teachers: ClassVar[Teachers] = "clients"

    def distance(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar."""
        return similarity_loss(step.student_features(), self.target(step), self.settings.student_temperature)

    def target(self, step: Step) -> Tensor:
        """Return Ā (B, B)."""
        total = sum(teacher.weight for teacher in step.teachers)
        device = step.parts[0].pixels.device
        mean = torch.zeros(len(step.rows), len(step.rows), device=device)
        for teacher in step.teachers:
            z_BD = teacher.features[step.rows].to(device).float()
            logits = similarities(z_BD, self.settings.teacher_temperature)
            mean += teacher.weight / total * logits.softmax(dim=1)
        return mean


def similarities(z_BD: Tensor, temperature: float) -> Tensor:
    """Return the logits z zᵀ/τ of normalised features with the diagonal masked (B, B)."""
    logits = z_BD @ z_BD.T / temperature
    return logits.masked_fill(torch.eye(len(z_BD), dtype=torch.bool, device=z_BD.device), float("-inf"))


def similarity_loss(z_BD: Tensor, target_BB: Tensor, temperature: float) -> Tensor:
    """Return KL(Ā ‖ rowsoftmax(Z Zᵀ/τ_S)), averaged over rows (arXiv 2107.01152 distils the same
    relations)."""
    return row_divergence(target_BB, similarities(z_BD, temperature))


def row_divergence(target_BB: Tensor, logits_BB: Tensor) -> Tensor:
    """Return KL(target ‖ rowsoftmax(logits)), averaged over rows; logits may be -inf where the
    target is 0."""
    log_student = logits_BB.log_softmax(dim=1)
    entropy = torch.xlogy(target_BB, target_BB).sum(dim=1)
    cross = torch.where(target_BB > 0, target_BB * log_student, 0.0).sum(dim=1)
    return (entropy - cross).mean()
