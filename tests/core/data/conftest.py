"""Small GeoTIFFs and site files, written where a test needs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from fedsense_core.data.chips import chipping
from fedsense_core.data.opening import load_site
from fedsense_core.data.raster import scenes
from fedsense_core.data.sites.schema import Site

WriteTiff = Callable[..., Path]
WriteSite = Callable[..., Site]
RGB = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@pytest.fixture
def write_tiff(tmp_path: Path) -> WriteTiff:
    def write(name: str, image: np.ndarray[Any, Any], *, tags: dict[str, Any] | None = None, **profile: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bands, height, width = image.shape
        tiling = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        options = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": image.dtype} | tiling
        with rasterio.open(path, "w", **(options | profile)) as file:
            file.write(image)
            file.update_tags(**(tags or {}))
        return path

    return write


@pytest.fixture
def write_site(tmp_path: Path) -> WriteSite:
    def write(text: str = 'sensor = "rgb"', paths: str = "*.tif", name: str = "here") -> Site:
        path = tmp_path / "site.toml"
        path.write_text(f'name = "{name}"\n[[sources]]\npaths = ["{paths}"]\n{text}\n')
        return load_site(path)

    return write


@pytest.fixture
def image() -> Callable[..., np.ndarray[Any, Any]]:
    def make(bands: int = 3, height: int = 128, width: int = 192, dtype: str = "uint8", seed: int = 0) -> Any:
        return np.random.default_rng(seed).integers(1, 250, (bands, height, width)).astype(dtype)

    return make


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scenes whose files are opened, in the order of a draw."""
    seen: list[str] = []
    plain = scenes.read_scene

    def noted(scene: Any, *rest: Any) -> Any:
        seen.append(scene.path.name)
        return plain(scene, *rest)

    monkeypatch.setattr(chipping, "read_scene", noted)
    return seen
