"""``sam-every-k``: SAM on every k-th step, plain gradients between."""

from __future__ import annotations

from client_app.guidance.sam import Sam


class SamEveryK(Sam):
    """`Sam` at a k-th of its extra cost."""

    name = "sam-every-k"

    def climbs(self, step: int) -> bool:
        """Return whether the step is a k-th one."""
        return step % self.settings.every == 0
