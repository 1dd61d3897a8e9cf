"""``mixed``: SAM that climbs between the local and the global way up (FedGF, PMLR v235 lee24aa)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from client_app.guidance.sam import Sam


class Mixed(Sam):
    """Climbs along the normalised mix of ĝ and the global direction."""

    name = "mixed"

    @cached_property
    def directions(self) -> list[Tensor]:
        """The global way up, by tensor, where the model is."""
        return [view.to(self.device) for view in self.table.unflatten(self.direction).values()]

    def ascent(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the unit direction in which to climb, by tensor."""
        mix, local = self.settings.mix, super().ascent(gradients)
        return self.units([(1 - mix) * a + mix * d for a, d in zip(local, self.directions, strict=True)])
