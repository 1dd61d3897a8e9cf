"""Federated SIGReg: what is to be Gaussian is the mixture of all clients' embeddings, not those of each client alone.

A client that sees one kind of land would otherwise be told to spread it over the whole space. Ours: LeJEPA (arXiv
2511.08544) knows one place. Clients send sums (`SigregStatistics`) of what they trained on, along directions that run
and round name; the next round compares each batch together with the others' sums. Shapes: B batch, V views, D width of
an embedding, M directions, T knots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsense_core.seeds import seed_of
from fedsense_core.settings import Config
from fedsense_core.ssl.sigreg import SigregStatistics, random_directions, sigreg_from, sigreg_statistics
from fedsense_core.ssl.step import precise


@dataclass(frozen=True)
class Mixture:
    """What stands for all clients' embeddings in one client's loss: its batch, and what the others sent."""

    directions_MD: Tensor
    """Along which the others looked."""
    others: SigregStatistics
    """Sums of the other clients' embeddings, of the last round."""
    own_count: int
    """Embeddings that this client makes in a round: its part of the mixture."""

    @property
    def share(self) -> float:
        """Return this client's part of all embeddings, in (0, 1)."""
        return self.own_count / (self.own_count + self.others.count)

    def sigreg(self, z_BD: Tensor) -> Tensor:
        """Return SIGReg (scalar) of s φ̂(batch) + (1-s) φ̂(others), s the share, with B as the number of samples.

        The gradient is taken by φ̂(batch) without the factor s. So, where each batch is all that a client has, the mean
        of the clients' gradients, each by its share, is the gradient of SIGReg on all embeddings at once.
        """
        batch = sigreg_statistics(z_BD, self.directions_MD.to(z_BD.device))
        cosines_MT = self._mixed(batch.cosines_MT, self.others.cosines_MT.to(z_BD), batch.count)
        sines_MT = self._mixed(batch.sines_MT, self.others.sines_MT.to(z_BD), batch.count)
        return sigreg_from(SigregStatistics(cosines_MT, sines_MT, batch.count))

    def _mixed(self, batch_MT: Tensor, others_MT: Tensor, count: int) -> Tensor:
        """Return sums whose value is the mixture's and whose gradient is the batch's own."""
        theirs_MT = others_MT / self.others.count * count
        mixed_MT = self.share * batch_MT.detach() + (1 - self.share) * theirs_MT
        return mixed_MT + (batch_MT - batch_MT.detach())


@dataclass(frozen=True)
class FederatedSigreg:
    """One client's part in one round: the mixture that it trains by, and what it finds out for the next round."""

    mixture: Mixture | None
    """None where no other client sent sums: then plain SIGReg it is."""
    next_directions_MD: Tensor
    """Of the next round."""

    @classmethod
    def of(cls, config: Config, server_round: int, others: SigregStatistics | None) -> FederatedSigreg | None:
        """Return that of a round; None where ``train.federated_sigreg`` is off."""
        train = config.train
        if not train.federated_sigreg:
            return None
        own_count = train.local_steps * train.batch_size * train.views
        mixture = Mixture(_directions(config, server_round), others, own_count) if others else None
        return cls(mixture, _directions(config, server_round + 1))

    def look(self, z_VBD: Tensor) -> SigregStatistics:
        """Return the sums over all views of a batch along the next round's directions, without gradient."""
        with torch.autocast(z_VBD.device.type, enabled=False):
            z_ND = precise(z_VBD.detach()).flatten(0, 1)
            return sigreg_statistics(z_ND, self.next_directions_MD.to(z_ND.device))


def _directions(config: Config, server_round: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("sigreg", config.run.seed, server_round))
    return random_directions(config.train.sigreg_directions, config.model.projector[1], generator)
