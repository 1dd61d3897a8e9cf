"""``self``: a control, the mean model as its own teacher."""

from __future__ import annotations

from server_app.distillation.similarity import Similarity


class SelfSimilarity(Similarity):
    """`Similarity` to what the aggregated model itself makes of the chips, before it is trained."""

    name = "self"
    teachers = "student"
