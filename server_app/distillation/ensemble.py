"""``ensemble``: FLESD (Shi et al. 2021, arXiv 2109.14611), without a queue of keys."""

from __future__ import annotations

import torch
from torch import Tensor

from server_app.distillation.objective import Objective, Step, normalised
from server_app.distillation.similarity import row_divergence


class Ensemble(Objective):
    """A view of each chip is compared with keys of another view, as the clients together do it."""

    name = "ensemble"
    teachers = "clients"
    compares_heads = True
    key_decay = 0.999  # the default of its public code, and of MoCo

    def distance(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar."""
        assert step.student.keys is not None
        queries, others = step.augment(), step.augment()
        q_BD = normalised(step.represent(step.student.model, queries))
        with torch.no_grad():
            k_BD = normalised(step.represent(step.student.keys.model, others))
        target_BB = ensemble_target(step.teacher_features(), self.settings.teacher_temperature)
        return row_divergence(target_BB, q_BD @ k_BD.T / self.settings.student_temperature)


def ensemble_target(teachers_nBD: Tensor, temperature: float) -> Tensor:
    """Return FLESD's rows (B, B): the mean over clients of exp((M_i - row maximum)/τ_T), then
    normalised.

    M_i = R_i R_iᵀ of normalised features (arXiv 2109.14611, ensemble and sharpening; its public
    code). The row maximum is the chip's similarity to itself, 1 for every client. Rows are
    normalised after the mean: a client that finds a chip unlike all others says less about it,
    where ``similarity`` gives every client an equal say.
    """
    similar_nBB = teachers_nBD @ teachers_nBD.mT
    sharp_BB = ((similar_nBB - similar_nBB.amax(dim=2, keepdim=True)) / temperature).exp().mean(dim=0)
    return sharp_BB / sharp_BB.sum(dim=1, keepdim=True)
