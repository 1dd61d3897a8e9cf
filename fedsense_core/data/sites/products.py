"""Products that are one scene, or one for each granule: Sentinel-1 and -2 in SAFE folders, or as
the ZIP archives in which they are downloaded.

Names are those of ESA's Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), of before
and since December 2016, and of its Sentinel-1 Product Specification (S1-RS-MDA-52-7441).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsense_core.data.sites.archives import SUFFIX as ARCHIVE
from fedsense_core.data.sites.archives import BadArchive, members
from fedsense_core.data.sites.schema import Layer, Scene
from fedsense_core.data.sites.sensors import SensorCard
from fedsense_core.data.sites.walking import files_below

FOLDER = ".safe"
_SENTINEL2 = re.compile(
    r"GRANULE/(?P<granule>[^/]+)/IMG_DATA/(?:R\d\dm/)?[^/]*_(?P<band>B\d[\dA]|SCL)(?:_[^/]*?)??"
    r"(?:_(?P<metres>\d\d)m)?\.(?:jp2|tiff?)",
    re.IGNORECASE,
)
_SENTINEL1 = re.compile(r"measurement/[^/]*-(?P<band>vv|vh|hh|hv)-[^/]*\.tiff?", re.IGNORECASE)
_LEVEL = re.compile(r"_MSI(L1C|L2A)_")
_CARDS = {"L1C": "sentinel2-l1c", "L2A": "sentinel2-l2a"}
_CLASSES = "SCL"


class NoScene(Exception):
    """Why a product is no scene of a source."""


@dataclass(frozen=True)
class _Image:
    """A file of a product that holds one band, or the scene classification."""

    scene: str
    band: str
    metres: int
    path: Path


def is_product(path: Path) -> bool:
    """Tell whether ``path`` is a SAFE folder, or an archive that may hold one."""
    suffix = path.suffix.lower()
    return (suffix == FOLDER and path.is_dir()) or (suffix == ARCHIVE and path.is_file())


def scenes_of_product(path: Path, sensor: str, card: SensorCard, bands: Sequence[int]) -> tuple[Scene, ...]:
    """Return the scenes of a product: of each of the card's ``bands`` the finest file, and the
    scene classification as the mask.

    ``sensor`` names the source's card. Raises NoScene for a product that is broken, or of another
    sensor or processing level.
    """
    root, names = _files(path)
    level = _LEVEL.search(root.name)
    if level and sensor in _CARDS.values() and _CARDS[level[1]] != sensor:
        raise NoScene(f"is a product of level {level[1]}, but its source's sensor is {sensor!r}")
    images = _images(root, names)
    granules = sorted({image.scene for image in images})
    scenes = [_scene([image for image in images if image.scene == granule], card, bands) for granule in granules]
    found = tuple(scene for scene in scenes if scene is not None)
    if not found:
        raise NoScene(f"is a product without any of the bands {', '.join(card.names)}; give it a source of its sensor")
    return found


def _files(path: Path) -> tuple[Path, list[str]]:
    """Return the SAFE folder of a product, and the names of its files from there."""
    if path.suffix.lower() != ARCHIVE:
        return path, sorted(file.relative_to(path).as_posix() for file in files_below(path))
    try:
        names = sorted(members(path))
    except BadArchive as error:
        raise NoScene(str(error)) from error
    roots = sorted({name.split("/")[0] for name in names if name.split("/")[0].lower().endswith(FOLDER)})
    if len(roots) != 1:
        raise NoScene(f"holds {len(roots)} SAFE products, not one; unpack it and list its files")
    start = f"{roots[0]}/"
    return path / roots[0], [name.removeprefix(start) for name in names if name.startswith(start)]


def _images(root: Path, names: Sequence[str]) -> list[_Image]:
    found = []
    for name in names:
        if match := _SENTINEL2.fullmatch(name):
            metres = int(match["metres"] or 0)
            found.append(_Image(match["granule"], match["band"].upper(), metres, root / name))
        elif match := _SENTINEL1.fullmatch(name):
            found.append(_Image("", match["band"].upper(), 0, root / name))
    return found


def _scene(images: Sequence[_Image], card: SensorCard, bands: Sequence[int]) -> Scene | None:
    """Return the scene of a granule; None where it has none of the bands."""
    layers = []
    for band in bands:
        path = _finest(images, {card.bands[band].code.upper(), card.bands[band].name.upper()})
        layers += [Layer(path, (band,))] if path else []
    return Scene(tuple(layers), _finest(images, {_CLASSES})) if layers else None


def _finest(images: Sequence[_Image], labels: set[str]) -> Path | None:
    """Return the file of a band with the smallest pixels. Raises NoScene where there are two."""
    named = [image for image in images if image.band in labels]
    finest = [image for image in named if image.metres == min(one.metres for one in named)]
    if len(finest) > 1:
        raise NoScene(
            f"has {len(finest)} files of {finest[0].band}, as {finest[0].path.name}; a single look complex product is "
            "not read, only ground range detected (GRD) ones"
        )
    return finest[0].path if finest else None
