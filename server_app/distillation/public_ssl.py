"""``public-ssl``: a control, as many steps of plain self-supervision."""

from __future__ import annotations

from torch import Tensor

from server_app.distillation.objective import Objective, Step


class PublicSelfSupervision(Objective):
    """Nobody teaches: the distance is 0, and λ_pub L_ssl is the whole loss, with λ_pub = 1."""

    name = "public-ssl"
    teachers = "nobody"

    def distance(self, step: Step) -> Tensor:
        """Return 0."""
        return next(step.student.model.parameters()).new_zeros(())
