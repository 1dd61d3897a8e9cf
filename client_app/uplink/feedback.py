"""Clients-to-server guidance, as a client speaks it: what it codes, and what it still owes (DESIGN,
sections 3 and 5).

Shapes: N as in ``fedsense_core.tensors``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from client_app.memory import Slot
from fedsense_core.codecs.codec import Codec
from fedsense_core.protocol.messages import TrainTask
from fedsense_core.protocol.prediction import restore
from fedsense_core.tensors import TensorTable

MAX_MISSED = 16
"""Versions of the model after which a residual is stale: as many frames of 4 bits as are smaller
than a snapshot."""


@dataclass(frozen=True)
class Uplink:
    """How one client codes one round."""

    codec: Codec
    table: TensorTable
    seed: int
    """Of the rotation; the server knows it."""
    feedback: bool
    """Whether what the codec loses is owed to later rounds."""

    def send(self, delta: Tensor, owed: Tensor | None, predicted: Tensor | None) -> tuple[bytes, Tensor | None]:
        """Return the payload q = Q_b(v) of v = Δ + e - γ m̂, and the new residual e' = Δ + e - Δ̂.

        ``owed`` is e and ``predicted`` γ m̂, both (N,), None for zero. Δ̂ = γ m̂ + decode(q) is
        computed as the server computes it, so that its rounding, too, is owed. Without feedback the
        scale is unbiased and nothing is owed.
        """
        due = delta if owed is None else delta + owed
        rest = due if predicted is None else due - predicted
        payload = self.codec.encode(rest, self.table, self.seed, unbiased=not self.feedback)
        if not self.feedback:
            return payload, None
        return payload, due - restore(self.codec.decode(payload, self.table, self.seed), predicted)


def still_owed(slot: Slot | None, task: TrainTask, table: TensorTable, feedback: bool) -> tuple[Tensor | None, str]:
    """Return e (N,) where it fits what the round builds on, and a note for the coordinator where it
    does not.

    What a client owed before it missed many versions belongs to a model long gone.
    """
    if slot is None:
        what = " and, with it, what its codec still owed" if feedback else ""
        return None, f"its state of round {task.acknowledged} is gone{what}" if task.acknowledged else ""
    if not feedback or slot.residual is None:
        return None, ""
    missed = task.version - slot.replica.version
    if missed > MAX_MISSED:
        return None, f"its residual of round {slot.round} was dropped: it missed {missed} versions of the model"
    if slot.residual.shape != (table.numel,):
        return None, f"its residual of round {slot.round} was dropped: {len(slot.residual)} numbers, not {table.numel}"
    return slot.residual, ""
