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
    """What one client knows in one round of all clients' embeddings, and what it is to find out for the next one."""

    directions_MD: Tensor
    """Of this round: along them the others looked, too."""
    next_directions_MD: Tensor
    """Of the next round: along them this client looks for the others."""
    own_count: int
    """Embeddings that this client makes in a round: its part of the mixture."""
    others: SigregStatistics | None = None
    """Sums of the other clients' embeddings, of the last round; None where no other client sent any."""

    @classmethod
    def of(cls, config: Config, server_round: int, others: SigregStatistics | None) -> Mixture | None:
        """Return that of a round; None where ``train.federated_sigreg`` is off."""
        train = config.train
        if not train.federated_sigreg:
            return None
        now, later = (_directions(config, number) for number in (server_round, server_round + 1))
        return cls(now, later, train.local_steps * train.batch_size * train.views, others)

    @property
    def share(self) -> float:
        """Return this client's part of all embeddings, in (0, 1]."""
        return 1.0 if self.others is None else self.own_count / (self.own_count + self.others.count)

    def sigreg(self, z_BD: Tensor) -> Tensor:
        """Return SIGReg (scalar) of the mixture that the batch stands for, with B as the number of samples.

        Its gradient is that of the mixture's loss by the batch's *mean* characteristic function: the mean of the
        clients' gradients, each by its share, is the gradient on all their embeddings at once. Alone it is plain
        SIGReg, bit for bit.
        """
        batch = sigreg_statistics(z_BD, self.directions_MD.to(z_BD.device))
        if self.others is None:
            return sigreg_from(batch)
        cosines_MT = self._mixed(batch.cosines_MT, self.others.cosines_MT.to(z_BD), batch.count)
        sines_MT = self._mixed(batch.sines_MT, self.others.sines_MT.to(z_BD), batch.count)
        return sigreg_from(SigregStatistics(cosines_MT, sines_MT, batch.count))

    def look(self, z_VBD: Tensor) -> SigregStatistics:
        """Return the sums over all views of a batch along the next round's directions, without gradient."""
        with torch.autocast(z_VBD.device.type, enabled=False):
            z_ND = precise(z_VBD.detach()).flatten(0, 1)
            return sigreg_statistics(z_ND, self.next_directions_MD.to(z_ND.device))

    def _mixed(self, batch_MT: Tensor, others_MT: Tensor, count: int) -> Tensor:
        """Return sums whose value is the mixture's and whose gradient is the batch's own."""
        assert self.others is not None
        theirs_MT = others_MT / self.others.count * count
        mixed_MT = self.share * batch_MT.detach() + (1 - self.share) * theirs_MT
        return mixed_MT + (batch_MT - batch_MT.detach())


def _directions(config: Config, server_round: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("sigreg", config.run.seed, server_round))
    return random_directions(config.train.sigreg_directions, config.model.projector[1], generator)
