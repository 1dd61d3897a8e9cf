"""``none``: plain local training."""

from __future__ import annotations

from client_app.guidance.guidance import Guidance


class NoGuidance(Guidance):
    """Starts at ŵ and takes every gradient where the weights are."""

    name = "none"
