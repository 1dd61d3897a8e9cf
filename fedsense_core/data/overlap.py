"""Which share of some imagery is also in another set, such as the public or a test set, without
comparing pixels.

A set is reduced to *marks*: the ground that its georeferenced scenes cover, and a hash of what each
chip looks like. Whoever holds the other imagery compares it with the marks. Shapes: n chips, C
bands, S chip size, q quadrangles, k points.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as reproject_points

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.raster.files import open_raster
from fedsense_core.data.raster.formats import GDAL_OPTIONS, Unreadable
from fedsense_core.data.raster.grids import Grid
from fedsense_core.protocol.side_channels import Attachments, SideChannel

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Float64s = NDArray[np.float64]
Item = TypeVar("Item")

LOOKED_AT = 2048
"""Chips of a set that are compared, spread evenly."""
MOST_HASHES = 32_768
"""Chips of a set that leave a hash, spread evenly: 256 KiB."""
MOST_FOOTPRINTS = 8_192
"""Scenes of a set that leave a footprint: 288 KiB."""
ALIKE = 3
"""Bits of 64 in which hashes of one chip may differ, after other scaling or compression."""
LEAST_BITS = 8
"""Fewer bits of one kind, and a chip is a slope or a plain, of which there are many alike."""
SIMILAR_GSD = 4.0
"""Times that pixels may be larger: a map of the world covers all and shares none of it."""
AT_ONCE = 256
"""Chips that are hashed at once."""
_POINTS = 8
"""Along each side of a scene, at which it is looked up on the ground."""
_PREFIX = "overlap-"
_HEAD = struct.Struct("<II")
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)
"""How many bits of a byte are set."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What a set is recognised by."""

    footprints: NDArray[np.float32]
    """(q, 9) longitude and latitude of a scene's four corners, and the side of its pixels in
    metres."""
    hashes: Bytes
    """(n, 8)"""

    def __bool__(self) -> bool:
        return bool(len(self.footprints) or len(self.hashes))

    def to_bytes(self) -> bytes:
        """Return bytes from which `from_bytes` makes the same marks."""
        head = _HEAD.pack(len(self.footprints), len(self.hashes))
        return head + self.footprints.astype("<f4").tobytes() + self.hashes.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Marks:
        """Read what `to_bytes` wrote, whoever sent it. Raises ValueError for anything else."""
        if len(data) < _HEAD.size:
            raise ValueError("marks have a head")
        footprints, hashes = _HEAD.unpack_from(data)
        if footprints > MOST_FOOTPRINTS or hashes > MOST_HASHES:
            raise ValueError(f"{footprints} footprints and {hashes} hashes are too many")
        if len(data) != _HEAD.size + 36 * footprints + 8 * hashes:
            raise ValueError("marks are as long as they say")
        grounds = np.frombuffer(data, "<f4", 9 * footprints, _HEAD.size).reshape(-1, 9).astype(np.float32)
        if not np.isfinite(grounds).all():
            raise ValueError("a corner is no place")
        return cls(grounds, np.frombuffer(data, np.uint8, offset=_HEAD.size + 36 * footprints).reshape(-1, 8))


def marks_of(sets: Sequence[Chips]) -> Marks:
    """Return the marks of chips that were opened together."""
    paths = dict.fromkeys(path for chips in sets for path in chips.scene_paths)
    found = [place for path in _spread(list(paths), MOST_FOOTPRINTS) if (place := Footprint.of(Path(path)))]
    total = sum(map(len, sets))
    hashes = []
    for chips in sets:
        chosen = _spread(range(len(chips)), max(1, MOST_HASHES * len(chips) // max(1, total)))
        hashes.append(hashes_of_chips(chips, chosen))
    return marks([place.row() for place in found], hashes)


def marks(footprints: Sequence[Array], hashes: Iterable[Bytes]) -> Marks:
    """Join footprints (9,) and hashes (n, 8), leaving out those that many chips could have."""
    joined = np.concatenate([np.empty((0, 8), np.uint8), *hashes])
    joined = np.unique(joined[telling(joined)], axis=0)[:MOST_HASHES]
    return Marks(np.array(footprints[:MOST_FOOTPRINTS], np.float32).reshape(-1, 9), joined)


def share_of(sets: Sequence[Chips], other: Marks) -> float:
    """Return the share of these chips that lie on the other set's ground, in pixels of similar
    size, or that look like one of its chips; 0 to 1, of at most about `LOOKED_AT` chips."""
    total, shared = sum(map(len, sets)), 0.0
    looked_at = 0
    for chips in sets:
        chosen = list(_spread(range(len(chips)), max(1, LOOKED_AT * len(chips) // max(1, total))))
        alike = matches(hashes_of_chips(chips, chosen), other.hashes)
        on_ground = _ground_shares(chips, chosen, other)
        shared += float(np.maximum(alike, on_ground).sum())
        looked_at += len(chosen)
    return shared / max(1, looked_at)


@dataclass(frozen=True)
class Footprint:
    """The ground of one raster."""

    corners: Float64s
    """(4, 2) longitude and latitude, around it."""
    points: Float64s
    """(k, 2) longitude and latitude, spread over it."""
    gsd_m: float

    @classmethod
    def of(cls, path: Path) -> Footprint | None:
        """Return the ground of a file, or None where it is no georeferenced raster."""
        try:
            with rasterio.Env(**GDAL_OPTIONS), open_raster(path) as file:
                grid = Grid.of(file)
        except Unreadable:
            return None
        if grid.transform is None or grid.crs is None:
            return None
        inner = (np.arange(_POINTS) + 0.5) / _POINTS
        columns = np.concatenate([[0, 1, 1, 0], np.tile(inner, _POINTS)]) * grid.width
        rows = np.concatenate([[0, 0, 1, 1], np.repeat(inner, _POINTS)]) * grid.height
        x, y = grid.transform * (columns, rows)
        try:
            places = np.array(reproject_points(grid.crs, CRS.from_epsg(4326), x, y)[:2], np.float64).T
        except (RasterioError, CPLE_BaseError, ValueError):
            return None
        return cls(places[:4], places[4:], grid.gsd_m(0.0)) if np.isfinite(places).all() else None

    def row(self) -> NDArray[np.float32]:
        """Return it as a row (9,) of `Marks.footprints`."""
        return np.array([*self.corners.ravel(), self.gsd_m], np.float32)

    def share_in(self, footprints: NDArray[np.float32]) -> float:
        """Return the share of its points that lie in some of the footprints (q, 9)."""
        larger = footprints[:, 8].astype(np.float64) / max(self.gsd_m, 1e-9)
        near = (larger <= SIMILAR_GSD) & (larger >= 1 / SIMILAR_GSD)
        corners = footprints[near, :8].astype(np.float64).reshape(-1, 4, 2)
        return float(_inside(self.points, corners).any(axis=1).mean()) if len(corners) else 0.0


def hashes_of_chips(chips: Chips, chosen: Sequence[int]) -> Bytes:
    """Return a hash (len(chosen), 8) of each chosen chip."""
    parts = [chosen[first : first + AT_ONCE] for first in range(0, len(chosen), AT_ONCE)]
    return np.concatenate([np.empty((0, 8), np.uint8), *(hashes_of(chips.read(list(part)).numpy()) for part in parts)])


def hashes_of(values: Array) -> Bytes:
    """Return the difference hash (n, 8) of chips (n, C, S, S): whether each of 8 x 8 cells is
    brighter than the one left of it.

    Brightness is the mean over bands, each in deviations from the chip's own mean, so that units
    and standardisation do not matter. Chips of fewer than 9 pixels have the hash 0.
    """
    n, _, side, _ = values.shape
    if side < 9:
        return np.zeros((n, 8), np.uint8)
    cells: Array = values.astype(np.float32)
    for axis, count in ((3, 9), (2, 8)):
        edges = np.linspace(0, side, count + 1).astype(np.int64)
        widths = np.diff(edges).reshape([-1 if one == axis else 1 for one in range(4)])
        cells = np.add.reduceat(cells, edges[:-1], axis=axis) / widths
    cells -= cells.mean(axis=(2, 3), keepdims=True)
    grey = (cells / np.maximum(cells.std(axis=(2, 3), keepdims=True), 1e-12)).mean(axis=1)
    return np.packbits((np.diff(grey, axis=2) > 0).reshape(n, 64), axis=1)


def telling(hashes: Bytes) -> NDArray[np.bool_]:
    """Return (n,) which hashes tell a chip from others."""
    bits = _BITS[hashes].sum(axis=1)
    return np.asarray((bits >= LEAST_BITS) & (bits <= 64 - LEAST_BITS))


def matches(hashes: Bytes, others: Bytes) -> NDArray[np.bool_]:
    """Return (n,) which hashes (n, 8) differ from one of the others in at most `ALIKE` bits."""
    found = telling(hashes)
    for i in np.flatnonzero(found):
        found[i] = len(others) > 0 and int(_BITS[others ^ hashes[i]].sum(axis=1).min()) <= ALIKE
    return found


class OverlapShares(SideChannel):
    """What each site says it shares with sets of the server, whose marks the handshake carries."""

    name = "overlap"
    carried_by = "handshake"
    limit = 1 << 10

    def __init__(self, sets: Mapping[str, Marks]) -> None:
        self.sets = sets
        """Marks by the name of the set."""
        self.by_site: dict[str, dict[str, float]] = {}
        """Shares, 0 to 1, by site and set."""

    def for_handshake(self) -> Attachments:
        """Return the marks of every set, each under its own name."""
        return {_PREFIX + name: marks.to_bytes() for name, marks in self.sets.items() if marks}

    def judge(self, attachment: bytes, examples: float) -> dict[str, float]:
        """Read the shares of a site, whoever sent them. Raises ValueError for anything else."""
        found = json.loads(attachment) if attachment else {}
        if not isinstance(found, dict) or not found.keys() <= self.sets.keys():
            raise ValueError("shares are of the sets that were asked about")
        if not all(isinstance(share, float | int) and 0 <= share <= 1 for share in found.values()):
            raise ValueError("a share lies between 0 and 1")
        return {name: float(share) for name, share in found.items()}

    def accept(self, judged: Mapping[str, dict[str, float]]) -> None:
        """Take what a site says now."""
        for site, shares in judged.items():
            self.drop(site)
            if shares:
                self.by_site[site] = shares

    def told(self, site: str) -> list[str]:
        """Say which sets a site shares chips with."""
        return overlap_texts(self.by_site.get(site, {}))

    def drop(self, site: str) -> None:
        """Forget what a site has said."""
        self.by_site.pop(site, None)


def shares_asked(chips: Sequence[Chips], asked: Attachments) -> dict[str, float]:
    """Return the shares of these chips in the sets whose marks a handshake carries, in thousandths.

    Raises ValueError for marks that are none.
    """
    sets = {name.removeprefix(_PREFIX): data for name, data in asked.items() if name.startswith(_PREFIX)}
    return {name: round(share_of(chips, Marks.from_bytes(data)), 3) for name, data in sets.items()}


def shares_as_bytes(shares: Mapping[str, float]) -> bytes:
    """Return shares as a handshake's answer carries them; nothing for none."""
    return json.dumps(shares).encode() if shares else b""


def overlap_texts(shares: Mapping[str, float]) -> list[str]:
    """Return a sentence for each set of which more than nothing is shared."""
    return [
        f"{100 * share:.3g} % of its chips are also in the {name} set, by their ground or by what they look like"
        for name, share in shares.items()
        if share > 0
    ]


def _ground_shares(chips: Chips, chosen: Sequence[int], other: Marks) -> Float64s:
    """Return of each chosen chip which share of its scene's ground is the other set's."""
    if not len(other.footprints):
        return np.zeros(len(chosen))
    scenes, which = np.unique(chips.scene[list(chosen)], return_inverse=True)
    places = [Footprint.of(Path(chips.scene_paths[scene])) for scene in scenes]
    return np.array([place.share_in(other.footprints) if place else 0.0 for place in places])[which]


def _inside(points: Float64s, corners: Float64s) -> NDArray[np.bool_]:
    """Return (k, q) which points (k, 2) lie in which convex quadrangles (q, 4, 2), of either
    sense."""
    side = np.roll(corners, -1, axis=1) - corners
    to = points[:, None, None] - corners
    cross = side[..., 0] * to[..., 1] - side[..., 1] * to[..., 0]
    return np.asarray((cross >= 0).all(axis=2) | (cross <= 0).all(axis=2))


def _spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    if len(items) <= most:
        return items
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most)]
