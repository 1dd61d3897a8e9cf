"""``l-dawa-normalised``: L-DAWA with weights that sum to one."""

from __future__ import annotations

from server_app.aggregation.l_dawa import LDawa


class NormalisedLDawa(LDawa):
    """Keeps the size of the model, which the published rule shrinks."""

    name = "l-dawa-normalised"
    normalised = True
