"""SIGReg of LeJEPA (arXiv 2511.08544): how far embeddings are from N(0, I), along random
directions.

Along each direction it is the statistic of Epps and Pulley: the squared distance of two
characteristic functions. Shapes: N samples, D width of an embedding, M directions, T knots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KNOTS = 17
REACH = 3.0
"""The characteristic functions are compared from -3 to 3; both are even in what is summed, so [0,
3] is enough."""
COUNT_BYTES = 8
ROUNDING = 1e-3
"""Relative error by which sums in float32 may exceed their number of samples."""


@dataclass(frozen=True)
class SigregStatistics:
    """All that SIGReg needs of its samples: sums, so that those of several clients add up to those
    of all samples."""

    cosines_MT: Tensor
    """Σ cos(t a·z) over samples, for each direction a and knot t."""
    sines_MT: Tensor
    """Σ sin(t a·z)."""
    count: int
    """Samples N."""

    def __add__(self, other: SigregStatistics) -> SigregStatistics:
        return SigregStatistics(
            self.cosines_MT + other.cosines_MT, self.sines_MT + other.sines_MT, self.count + other.count
        )

    def to_bytes(self) -> bytes:
        """Return the count as 8 bytes, then both sums as float32, little-endian: 8 + 8 M T
        bytes."""
        return self.count.to_bytes(COUNT_BYTES, "little") + pack_parts(self.cosines_MT, self.sines_MT)

    @classmethod
    def from_bytes(cls, data: bytes, directions: int) -> SigregStatistics:
        """Read what `to_bytes` wrote, whoever sent it. Raises ValueError for what no embeddings
        could give."""
        count = int.from_bytes(data[:COUNT_BYTES], "little")
        # Every sample adds a number from -1 to 1.
        parts = unpack_parts(data[COUNT_BYTES:], directions, count * (1 + ROUNDING), "sums of embeddings")
        if count < 1:
            raise ValueError("sums of embeddings are of no sample")
        return cls(*parts, count)


def are_of_samples(statistics: SigregStatistics) -> bool:
    """Return whether there are samples that have these sums.

    The knots are 0, h, 2h, ..., so φ(t_a - t_b) of all pairs of knots is a Toeplitz matrix (T, T)
    for each direction. φ is that of some distribution if and only if the matrix has no negative
    eigenvalue and φ(0) is 1 (theorem of Carathéodory and Toeplitz).
    """
    phi_MT = torch.complex(statistics.cosines_MT.double(), statistics.sines_MT.double()) / statistics.count
    slack = KNOTS * ROUNDING
    if bool(((phi_MT[:, 0] - 1).abs() > slack).any()):
        return False
    lags_TT = torch.arange(KNOTS)[:, None] - torch.arange(KNOTS)
    toeplitz_MTT = phi_MT[:, lags_TT.abs()]
    toeplitz_MTT = torch.where(lags_TT < 0, toeplitz_MTT.conj(), toeplitz_MTT)
    return bool((torch.linalg.eigvalsh(toeplitz_MTT) >= -slack).all())


def pack_parts(cosines_MT: Tensor, sines_MT: Tensor) -> bytes:
    """Return both as float32, little-endian: 8 M T bytes."""
    parts: np.ndarray = torch.stack([cosines_MT, sines_MT]).detach().cpu().float().numpy()
    return parts.astype("<f4").tobytes()


def parts_bytes(directions: int) -> int:
    """Return the length of what `pack_parts` writes."""
    return 8 * directions * KNOTS


def unpack_parts(data: bytes, directions: int, largest: float, what: str) -> tuple[Tensor, Tensor]:
    """Read what `pack_parts` wrote, whoever sent it. Raises ValueError for another length and for
    larger numbers."""
    wanted = parts_bytes(directions)
    if len(data) != wanted:
        raise ValueError(f"{what} have {len(data)} bytes of numbers, expected {wanted}")
    parts = np.frombuffer(data, "<f4").reshape(2, directions, KNOTS).astype(np.float32)
    if not (np.abs(parts) <= largest).all():  # also false for NaN
        raise ValueError(f"{what} have numbers beyond {largest:g}")
    cosines_MT, sines_MT = torch.from_numpy(parts)
    return cosines_MT, sines_MT


def random_directions(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw unit vectors (M, D), evenly from all directions, from a CPU generator."""
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)


def sigreg(z_ND: Tensor, directions_MD: Tensor) -> Tensor:
    """Return the mean over directions of T(a) = N Σ_j ω_j φ_j ((mean cos(t_j a·z) - φ_j)² + (mean
    sin(t_j a·z))²).

    t_j are 17 knots on [0, 3], φ_j = exp(-t_j²/2), and ω_j the weights of the trapezoid rule over
    [-3, 3]. Samples of N(0, I) give about 1.05 whatever their number; those of any other
    distribution a value that grows with N.
    """
    return sigreg_from(sigreg_statistics(z_ND, directions_MD))


def sigreg_statistics(z_ND: Tensor, directions_MD: Tensor) -> SigregStatistics:
    """Return the sums over samples from which `sigreg_from` computes the loss; the directions must
    be the same ones."""
    angles_NMT = (z_ND @ directions_MD.to(z_ND).T)[:, :, None] * _knots(z_ND)
    return SigregStatistics(angles_NMT.cos().sum(0), angles_NMT.sin().sum(0), len(z_ND))


def sigreg_from(statistics: SigregStatistics) -> Tensor:
    """Return the loss (scalar) of the samples that the statistics describe; see `sigreg`."""
    cosines_MT, sines_MT = statistics.cosines_MT / statistics.count, statistics.sines_MT / statistics.count
    knots = _knots(cosines_MT)
    gaussian = (-knots.square() / 2).exp()
    weights = torch.full_like(knots, 2 * REACH / (KNOTS - 1))
    weights[[0, -1]] /= 2  # the knot at 0 is the middle of [-3, 3], but has no partner to be doubled for
    error_MT = (cosines_MT - gaussian).square() + sines_MT.square()
    return statistics.count * (error_MT @ (weights * gaussian)).mean()


def _knots(like: Tensor) -> Tensor:
    return torch.linspace(0, REACH, KNOTS, dtype=like.dtype, device=like.device)
