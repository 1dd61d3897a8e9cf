"""An institution's imagery as equal square chips, standardised on the way out.

Shapes: n chips, C bands, S chip size, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.raster.scenes import common_dtype
from fedsense_core.data.sites.schema import Skipped
from fedsense_core.data.sites.sensors import Band
from fedsense_core.data.standardise import standardise

Array = NDArray[Any]


@dataclass(frozen=True)
class Chips:
    """Chips with the same bands. Each source (one sensor) is standardised by its own statistics."""

    segments: tuple[Array, ...]
    """Where the pixels lie: arrays (m, C, S, S), each of its own type; memory-mapped when
    cached."""
    segment: NDArray[np.int64]
    """(n,) in which of the segments each chip lies."""
    position: NDArray[np.int64]
    """(n,) at which position of its segment."""
    statistics: tuple[Statistics, ...]
    """Of each source's valid pixels, in stored units."""
    sensor: tuple[str, ...]
    """Name of each source's sensor card."""
    scene_paths: tuple[str, ...]
    """Scenes that the chips came from, in order, each by its first file."""
    skipped: tuple[Skipped, ...]
    """Scenes left out, each with its reason."""
    bands: tuple[str, ...]
    """Band names, in channel order."""
    spectrum: tuple[Band, ...]
    """What each channel is, by the first source's card."""
    name: str
    """Name of the site."""
    origin: Tensor
    """(n,) int64: which source each chip belongs to, as an index into the tables by source."""
    origin_mean: Tensor
    """(sources, C) float32, in stored units."""
    origin_std: Tensor
    """(sources, C) float32, in stored units."""
    scene: NDArray[np.int64]
    """(n,) which scene each chip was cut from, as an index into ``scene_paths``."""
    row: NDArray[np.int64]
    """(n,) pixel row of the chip's upper left corner in its scene."""
    col: NDArray[np.int64]
    """(n,) pixel column of the chip's upper left corner in its scene."""
    valid: NDArray[np.float32]
    """(n,) fraction of the chip's pixels that held a measurement in every band."""
    constant: tuple[int, ...] = ()
    """Of each scene, how many of its chips have one value all over, in every band; empty where
    nobody counted."""

    def __len__(self) -> int:
        return len(self.position)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest type that holds what is stored, in every segment."""
        return common_dtype([segment.dtype for segment in self.segments])

    def read(self, indices: Sequence[int] | Array | Tensor, out: Tensor | None = None) -> Tensor:
        """Return chips (B, C, S, S) as stored, copied once; into ``out`` if given, which must be of
        `dtype`.

        Raises IndexError for a position outside, TypeError for a mask of booleans.
        """
        index = _positions(indices)
        positions, segments = self.position[index], self.segment[index]
        if out is None:
            out = torch.from_numpy(np.empty((len(index), *self.segments[0].shape[1:]), self.dtype))
        target = out.numpy()
        if len(self.segments) == 1:
            # "clip" copies without a detour through a buffer; positions are known to be inside.
            np.take(self.segments[0], positions, axis=0, out=target, mode="clip")
        else:
            for chip, segment, position in zip(target, segments.tolist(), positions.tolist(), strict=True):
                np.copyto(chip, self.segments[segment][position])
        return out

    def standardise(self, raw: Tensor, indices: Sequence[int] | Array | Tensor) -> Tensor:
        """Return ``raw`` chips (B, C, S, S) as float32, on their device, by their own source's
        statistics.

        ``indices`` (B,) says which chips they are. Clamped to ±6.
        """
        origin = self.origin[torch.as_tensor(indices, dtype=torch.int64)]
        return standardise(raw, self.origin_mean[origin], self.origin_std[origin])

    def batch(self, indices: Sequence[int] | Array | Tensor) -> Tensor:
        """Return (B, C, S, S) float32 chips, standardised by their own source and clamped to ±6."""
        return self.standardise(self.read(indices), indices)

    def subset(self, indices: Sequence[int] | Array | Tensor) -> Chips:
        """Return only these chips, without copying a pixel; the statistics stay those of the
        whole."""
        index = _positions(indices)
        return replace(
            self,
            segment=self.segment[index],
            position=self.position[index],
            origin=self.origin[torch.from_numpy(index)],
            scene=self.scene[index],
            row=self.row[index],
            col=self.col[index],
            valid=self.valid[index],
        )


def joined(sets: Sequence[Chips], name: str) -> Chips:
    """Return the chips of sets with the same bands as one, each still standardised by its own
    source.

    A batch may then hold chips of all of them: small subsets would repeat theirs. No pixel is
    copied.
    """
    segments, origins, scenes = (
        np.cumsum([0, *map(len, tables)])[:-1].tolist()
        for tables in (
            [chips.segments for chips in sets],
            [chips.statistics for chips in sets],
            [chips.scene_paths for chips in sets],
        )
    )
    return Chips(
        segments=tuple(one for chips in sets for one in chips.segments),
        segment=np.concatenate([chips.segment + first for chips, first in zip(sets, segments, strict=True)]),
        position=np.concatenate([chips.position for chips in sets]),
        statistics=tuple(one for chips in sets for one in chips.statistics),
        sensor=tuple(one for chips in sets for one in chips.sensor),
        scene_paths=tuple(path for chips in sets for path in chips.scene_paths),
        skipped=tuple(one for chips in sets for one in chips.skipped),
        bands=sets[0].bands,
        spectrum=sets[0].spectrum,
        name=name,
        origin=torch.cat([chips.origin + first for chips, first in zip(sets, origins, strict=True)]),
        origin_mean=torch.cat([chips.origin_mean for chips in sets]),
        origin_std=torch.cat([chips.origin_std for chips in sets]),
        scene=np.concatenate([chips.scene + first for chips, first in zip(sets, scenes, strict=True)]),
        row=np.concatenate([chips.row for chips in sets]),
        col=np.concatenate([chips.col for chips in sets]),
        valid=np.concatenate([chips.valid for chips in sets]),
        constant=tuple(one for chips in sets for one in chips.constant),
    )


def _positions(indices: Sequence[int] | Array | Tensor) -> NDArray[np.int64]:
    given = np.asarray(indices)
    if given.dtype == np.bool_:  # as numbers they would be chips 0 and 1
        raise TypeError("give positions of chips, such as numpy.flatnonzero(mask), not a mask of booleans")
    return given.astype(np.int64)


def as_tensor(values: NDArray[np.float64]) -> Tensor:
    """Return statistics as float32."""
    return torch.from_numpy(values.astype(np.float32))
