"""Federated SIGReg: what is to be Gaussian is the mixture of all clients' embeddings, not those of
each client alone.

A client that sees one kind of land would otherwise be told to spread it over the whole space. Ours:
LeJEPA (arXiv 2511.08544) knows one place. Clients send sums (`SigregStatistics`) of what they
trained on, along directions that run and round name; the next round corrects each batch by how far
the mixture was from its client, as SCAFFOLD (arXiv 1910.06378) corrects gradients. Shapes: B batch,
V views, D width of an embedding, M directions, T knots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.sigreg import (
    SigregStatistics,
    pack_parts,
    random_directions,
    sigreg_from,
    sigreg_statistics,
    unpack_parts,
)
from fedsense_core.ssl.step import precise

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
    """One client's part in one round: what it trains by, and what it finds out for the next
    round."""

    directions_MD: Tensor
    """Of this round, which the last one announced."""
    offset: Offset | None
    """None in the first round, and after one in which this client or all others were missing: then
    plain SIGReg."""
    next_directions_MD: Tensor
    """Of the next round."""

    @classmethod
    def of(cls, config: Config, server_round: int, offset: Offset | None) -> FederatedSigreg | None:
        """Return that of a round; None where ``train.federated_sigreg`` is off."""
        if not config.train.federated_sigreg:
            return None
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

    def look(self, z_VBD: Tensor) -> SigregStatistics:
        """Return the sums over all views of a batch along the next round's directions, without
        gradient."""
        with torch.autocast(z_VBD.device.type, enabled=False):
            z_ND = precise(z_VBD.detach()).flatten(0, 1)
            return sigreg_statistics(z_ND, self.next_directions_MD.to(z_ND.device))


def _directions(config: Config, server_round: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("sigreg", config.run.seed, server_round))
    return random_directions(config.train.sigreg_directions, config.model.projector[1], generator)
