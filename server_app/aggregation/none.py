"""``none``: distillation alone moves the model (FLESD, FedMKD, the preset ``public-only``)."""

from __future__ import annotations

from server_app.aggregation.mean import Mean


class NoAggregation(Mean):
    """The mean is still measured; nothing is done with it."""

    name = "none"
    moves_the_model = False
