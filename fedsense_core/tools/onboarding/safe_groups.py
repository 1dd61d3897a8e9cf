"""Sources of SAFE products, drafted by their names alone: the reader finds the bands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedsense_core.data.sites.products import NoScene, scenes_of_product
from fedsense_core.data.sites.sensors import Band
from fedsense_core.tools.onboarding.globbing import below, fits, literal
from fedsense_core.tools.onboarding.guessing import Guess
from fedsense_core.tools.onboarding.parts import common_folder
from fedsense_core.tools.onboarding.products import card_of
from fedsense_core.tools.onboarding.scene_globs import MOST_LISTED, GlobSet
from fedsense_core.tools.onboarding.scene_groups import AMBIGUOUS, Group, Grouping

OTHER_KIND = "is an archive or a product of another kind than Sentinel-2 (level 1C, 2A) and Sentinel-1 GRD"
UNPACKED = "is the archive of a product that is here, too"
MOST_TRIED = 200
"""Products of a kind whose files are looked for."""
_SENTINEL2 = re.compile(r"S2[A-D]_(?:\w+_)?MSI(L1C|L2A)_")
_SENTINEL1 = re.compile(r"S1[A-D]_(IW|EW|S\d)_GRD([FHM])_1S(SV|DV|SH|DH)_")
_BANDS = {"SV": ("VV",), "DV": ("VV", "VH"), "SH": ("HH",), "DH": ("HH", "HV")}
_SPACING_M = {"F": {"SM": 4.0}, "H": {"IW": 10.0, "EW": 25.0, "SM": 10.0}, "M": {"IW": 40.0, "EW": 40.0, "SM": 40.0}}
"""Pixel spacing of ground range detected products by resolution and mode (Sentinel-1 Product
Definition, S1-RS-MDA-52-7440)."""


@dataclass(frozen=True)
class _Kind:
    """Products that make one source."""

    name: str
    """Glob of their names, without suffix."""
    guess: Guess


def add_products(result: Grouping, folder: Path, paths: Sequence[str]) -> list[tuple[Group, Guess]]:
    """Return a group and a guess for each kind of the products ``paths`` below ``folder``, and note
    in ``result`` those that are in no source."""
    unpacked = {_stem(path) for path in paths if path.lower().endswith(".safe")}
    kinds: dict[_Kind, list[str]] = {}
    for path in paths:
        kind = _kind(PurePosixPath(path).name)
        if kind is None:
            result.leave_out(OTHER_KIND, [path])
        elif path.lower().endswith(".zip") and _stem(path) in unpacked:
            result.leave_out(UNPACKED, [path])
        elif why := _fault(folder / path, kind.guess) if len(kinds.get(kind, ())) < MOST_TRIED else "":
            result.leave_out(why, [path])
        else:
            kinds.setdefault(kind, []).append(path)
    found = []
    for kind, own in kinds.items():
        globs = _globs(kind, own, paths)
        if globs:
            sets = (GlobSet(tuple(globs)),)
            found.append((Group((), sets, len(own), kind.guess.gsd_m, products=True), kind.guess))
        else:
            result.leave_out(AMBIGUOUS, own)
    return found


def _kind(name: str) -> _Kind | None:
    if level := _SENTINEL2.match(name):
        sensor = f"sentinel2-{level[1].lower()}"
        reason = f"the names are those of Sentinel-2 products of level {level[1][1:]}"
        return _Kind(f"*MSI{level[1]}*", Guess(reason, sensor))
    if radar := _SENTINEL1.match(name):
        mode, resolution, code = "SM" if radar[1][0] == "S" else radar[1], radar[2], radar[3]
        bands, gsd_m = _BANDS[code], _SPACING_M[resolution].get(mode, 10.0)
        reason = "the names are those of Sentinel-1 GRD products, whose integers are amplitudes"
        glob = f"S1?_{literal(radar[1])}_GRD{resolution}_1S{code}_*"
        card = card_of("sentinel1-grd")
        if set(bands) <= set(card.names):
            own = None if gsd_m == card.gsd_m else gsd_m
            return _Kind(glob, Guess(reason, "sentinel1-grd", bands if list(bands) != card.names else None, gsd_m=own))
        custom = tuple(Band.model_validate({"name": band, "polarisation": band}) for band in bands)
        keys = (("kind", "sar"), ("decibels", "amplitude"), ("nodata", 0.0))
        return _Kind(glob, Guess(reason, custom_bands=custom, keys=keys, gsd_m=gsd_m))
    return None


def _globs(kind: _Kind, own: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return globs that fit these products and no others."""
    folders = {path.rpartition("/")[0] for path in own}
    top = common_folder(folders)
    root = below(top) if folders == {top} else f"{below(top)}**/"
    globs = []
    for suffix in sorted({PurePosixPath(path).suffix for path in own}):
        members = {path for path in own if path.endswith(suffix)}
        candidates = [f"{root}*{suffix}", f"{root}{kind.name}{suffix}"]
        chosen = [one for one in candidates if {path for path in paths if fits(one, path)} == members][:1]
        globs += chosen or ([literal(path) for path in sorted(members)] if len(members) <= MOST_LISTED else [""])
    return [] if "" in globs else globs


def _fault(path: Path, guess: Guess) -> str:
    """Return why reading will skip a product, or an empty text."""
    if not guess.sensor:
        return ""
    card = card_of(guess.sensor)
    try:
        scenes_of_product(path, guess.sensor, card, range(len(card.bands)))
    except NoScene as reason:
        return str(reason)
    return ""


def _stem(path: str) -> str:
    """Return a product's name without ``.SAFE`` and ``.zip``."""
    return re.sub(r"(?i)(?:\.safe)?(?:\.zip)?$", "", PurePosixPath(path).name)
