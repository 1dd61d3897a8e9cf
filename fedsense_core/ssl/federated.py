"""Federated SIGReg: what is to be Gaussian is the mixture of all clients' embeddings, not those of
each client alone.

A client that sees one kind of land would otherwise have to spread it over the whole space. Ours:
LeJEPA (arXiv 2511.08544) trains on one machine. Clients send sums (`SigregStatistics`) over what
they trained on, along directions that run and round name; the next round corrects each batch by how
far the mixture was from its client, as SCAFFOLD (arXiv 1910.06378) corrects gradients. Shapes: B
batch, V views, D width of an embedding, M directions, T knots.

The second half of this file is what travels for it: one attachment of each reply (`SUMS`) and one
of each task (`OFFSET`). Where ``train.federated_sigreg`` is off, there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.protocol.side_channels import Attachments, SideChannel
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.sigreg import (
    COUNT_BYTES,
    SigregStatistics,
    are_of_samples,
    pack_parts,
    parts_bytes,
    random_directions,
    sigreg_from,
    sigreg_statistics,
    unpack_parts,
)
from fedsense_core.ssl.step import precise
from fedsense_core.state import State, as_bytes, as_tensor

SUMS = "embedding-sums"
"""Attachment of a reply: sums over the client's embeddings of this round."""
OFFSET = "embedding-offset"
"""Attachment of a task: how far all clients' embeddings of the last round were from this one's."""
LARGEST = 2.0
"""A difference of two means of cosines, or of sines, is no larger."""


@dataclass(frozen=True)
class Offset:
    """How far the mixture of all clients was from one of them: φ̂(all) - φ̂(own), characteristic
    functions."""

    cosines_MT: Tensor
    """Real part."""
    sines_MT: Tensor
    """Imaginary part."""

    @classmethod
    def between(cls, every: Sequence[SigregStatistics], own: SigregStatistics) -> Offset:
        """Return that of the client whose sums are ``own``; ``every`` has those of all clients,
        this one too."""
        whole = reduce(add, every)
        cosines_MT = whole.cosines_MT / whole.count - own.cosines_MT / own.count
        return cls(cosines_MT, whole.sines_MT / whole.count - own.sines_MT / own.count)

    def to_bytes(self) -> bytes:
        """Return 8 M T bytes."""
        return pack_parts(self.cosines_MT, self.sines_MT)

    @classmethod
    def from_bytes(cls, data: bytes, directions: int) -> Offset:
        """Read what `to_bytes` wrote. Raises ValueError for what is no difference of characteristic
        functions."""
        return cls(*unpack_parts(data, directions, LARGEST, "offsets of embeddings"))


@dataclass(frozen=True)
class FederatedSigreg:
    """One client's part in one round: what it trains by, and the sums that it sends for the next
    round."""

    directions_MD: Tensor
    """Of this round: those along which the last one's sums were taken."""
    offset: Offset | None
    """None in the first round, and after one in which this client or all others were missing: then
    plain SIGReg."""
    next_directions_MD: Tensor
    """Of the next round."""

    @classmethod
    def of(cls, config: Config, server_round: int, attachments: Mapping[str, bytes]) -> FederatedSigreg | None:
        """Return that of a round by the attachments of its task; None where
        ``train.federated_sigreg`` is off. Raises ValueError for an offset that cannot be."""
        if not config.train.federated_sigreg:
            return None
        data = attachments.get(OFFSET, b"")
        offset = Offset.from_bytes(data, config.train.sigreg_directions) if data else None
        return cls(_directions(config, server_round), offset, _directions(config, server_round + 1))

    def sigreg(self, z_BD: Tensor) -> Tensor:
        """Return SIGReg (scalar) of φ̂(batch) + φ̂(all) - φ̂(own), the latter two as they were in
        the last round.

        Where each batch is all that a client has, and the offset not old, that is φ̂(all): the mean
        of the clients' gradients, each by its share, is the gradient of SIGReg on all embeddings at
        once.
        """
        batch = sigreg_statistics(z_BD, self.directions_MD.to(z_BD.device))
        if self.offset is None:
            return sigreg_from(batch)
        cosines_MT = batch.cosines_MT + batch.count * self.offset.cosines_MT.to(z_BD)
        sines_MT = batch.sines_MT + batch.count * self.offset.sines_MT.to(z_BD)
        return sigreg_from(SigregStatistics(cosines_MT, sines_MT, batch.count))

    def next_sums(self, z_VBD: Tensor) -> SigregStatistics:
        """Return the sums over all views of a batch along the next round's directions, without
        gradient."""
        with torch.autocast(z_VBD.device.type, enabled=False):
            z_ND = precise(z_VBD.detach()).flatten(0, 1)
            return sigreg_statistics(z_ND, self.next_directions_MD.to(z_ND.device))


def _directions(config: Config, server_round: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("sigreg", config.run.seed, server_round))
    return random_directions(config.train.sigreg_directions, config.model.projector[1], generator)


def reply_attachments(sums: SigregStatistics | None) -> dict[str, bytes]:
    """Return what a client sends of its embeddings; nothing where it has no sums."""
    return {} if sums is None else {SUMS: sums.to_bytes()}


class EmbeddingSums(SideChannel):
    """The server's end: sums of embeddings come up, the offset of the mixture goes down.

    Open where ``train.federated_sigreg`` is on.
    """

    name = SUMS
    carried_by = "round"

    def __init__(self, config: Config) -> None:
        self.train = config.train
        self.limit = COUNT_BYTES + parts_bytes(config.train.sigreg_directions)
        self.sums: dict[str, SigregStatistics] = {}
        """Over the last round's embeddings, by site: the next round's directions name them, and no
        later one's."""

    def for_task(self, site: str) -> Attachments:
        """Return how far all embeddings of the last round were from a site's own.

        Nothing where the site had none among them, nor where it was alone: its offset would be
        zero.
        """
        if site not in self.sums or len(self.sums) < 2:
            return {}
        # In the order of names: sums in float32 depend on it.
        every = [self.sums[name] for name in sorted(self.sums)]
        return {OFFSET: Offset.between(every, self.sums[site]).to_bytes()}

    def judge(self, attachment: bytes, examples: float) -> SigregStatistics:
        """Return the sums of a reply, over all views of its examples.

        Raises ValueError where they are missing, could not be of any embeddings, or are of another
        number of samples: the count is a weight, and nobody weighs more than the examples it
        trained on.
        """
        sums = SigregStatistics.from_bytes(attachment, self.train.sigreg_directions)
        views = examples * self.train.views
        if sums.count != views:
            raise ValueError(f"sums of embeddings are of {sums.count} samples, its examples have {views:g} views")
        if not are_of_samples(sums):
            raise ValueError("sums of embeddings are of no samples: their cosines and sines contradict each other")
        return sums

    def accept(self, judged: Mapping[str, Any]) -> None:
        """Take the sums of the replies that count."""
        self.sums = dict(judged)

    def skip_round(self) -> None:
        """Forget sums along directions that no round to come looks along."""
        self.sums = {}

    def state_dict(self) -> State:
        """Return the sums by site, each as bytes."""
        return {site: as_tensor(sums.to_bytes()) for site, sums in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of a checkpoint. Raises ValueError for anything else."""
        directions = self.train.sigreg_directions
        self.sums = {site: SigregStatistics.from_bytes(as_bytes(sums), directions) for site, sums in state.items()}
