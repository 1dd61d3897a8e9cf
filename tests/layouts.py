"""Small rasters under the names that real products have, and the site file drafted from them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.opening import load_site, open_sources
from fedsense_core.data.sites.schema import Site, Source
from fedsense_core.tools.onboarding.drafting import Draft, draft_site

DRIVERS = {".png": "PNG", ".jpg": "JPEG"}


def pixels_of(name: str, shape: tuple[int, ...], dtype: str, low: float, high: float) -> NDArray[Any]:
    """Pixels that only this name has."""
    rng = np.random.default_rng(list(name.encode()))
    values = rng.uniform(low, high, shape) if dtype.startswith("float") else rng.integers(int(low), int(high), shape)
    return values.astype(dtype)


def raster(path: Path, pixels: NDArray[Any], gsd_m: float | None = 10.0, **profile: Any) -> NDArray[Any]:
    """Write (C, H, W) or (H, W) pixels, and return them."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptions, colours = profile.pop("names", ()), profile.pop("colours", None)
    options: dict[str, Any] = {"driver": DRIVERS.get(path.suffix.lower(), "GTiff"), "dtype": str(pixels.dtype)}
    options |= {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    if gsd_m is not None:
        options |= {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, gsd_m, gsd_m)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(options | profile)) as file:
            if colours:
                file.write_colormap(1, colours)
            file.write(pixels)
            for i, name in enumerate(descriptions, start=1):
                file.set_band_description(i, name)
    return pixels


def drafted(folder: Path) -> tuple[Draft, Site]:
    """Draft a site file of a folder beside it, and load it. The draft has no fault."""
    draft = draft_site(folder, folder.parent / f"{folder.name}.toml", None, lambda done, total: None)
    assert draft.fault == ""
    return draft, load_site(draft.path)


def chips_of(site: Site, size: int = 64) -> tuple[Chips, ...]:
    """All bands of each source's chips."""
    return open_sources(site, "all", size, None)


def names_of(source: Source) -> list[list[str]]:
    """Names of each scene's files, the mask last."""
    return [[file.name for file in scene.files] for scene in source.scenes]
