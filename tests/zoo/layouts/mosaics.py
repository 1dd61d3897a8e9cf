"""Rasters that stand for other rasters, and folders in which one file is unlike the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth, byte_planes, everywhere, write_raster

SIZE = 32
RGB = ("red", "green", "blue")


def vrt(path: Path, sources: Sequence[str], bands: int, across: bool, separate: bool = False) -> None:
    """Write what gdalbuildvrt writes over ``sources``, relative to it: side by side, or each as a
    band."""
    width = SIZE * (len(sources) if across else 1)
    origin, colours = (500_000.0, 5_000_000.0), ("Red", "Green", "Blue")
    lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{SIZE}">', "  <SRS>EPSG:32632</SRS>"]
    lines.append(f"  <GeoTransform>{origin[0]}, 10.0, 0.0, {origin[1]}, 0.0, -10.0</GeoTransform>")
    for band in range(bands):
        lines.append(f'  <VRTRasterBand dataType="{"UInt16" if separate else "Byte"}" band="{band + 1}">')
        lines += [] if separate else [f"    <ColorInterp>{colours[band]}</ColorInterp>"]
        for i, name in enumerate(sources):
            if separate and i != band:
                continue
            left = SIZE * i if across else 0
            lines += [
                "    <SimpleSource>",
                f'      <SourceFilename relativeToVRT="1">{name}</SourceFilename>',
                f"      <SourceBand>{1 if separate else band + 1}</SourceBand>",
                f'      <SrcRect xOff="0" yOff="0" xSize="{SIZE}" ySize="{SIZE}" />',
                f'      <DstRect xOff="{left}" yOff="0" xSize="{SIZE}" ySize="{SIZE}" />',
                "    </SimpleSource>",
            ]
        lines.append("  </VRTRasterBand>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</VRTDataset>", ""]))


def _mosaic(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for i in range(2):
        values = byte_planes(3, SIZE, i)
        corner = (500_000.0 + 10 * SIZE * i, 5_000_000.0)
        write_raster(folder / "tiles" / f"ortho_{i}.tif", values, corner=corner, photometric="RGB")
        truth[f"ortho_{i}"] = Truth(values.astype(float), everywhere(SIZE))
    vrt(folder / "ortho.vrt", ["tiles/ortho_0.tif", "tiles/ortho_1.tif"], 3, across=True)
    return [ExpectedSource("rgb", RGB, truth, gsd_m=10, left_out=("ortho.vrt",))]


def _stack(folder: Path) -> list[ExpectedSource]:
    truth, codes = {}, ("B04", "B03", "B02")
    for scene, name in enumerate(("T32TQM_20230605T101559", "T32TQM_20230615T101559")):
        values = byte_planes(3, SIZE, scene).astype(np.uint16) * 40
        for code, band in zip(codes, values, strict=True):
            write_raster(folder / name / f"{name}_{code}_10m.tif", band)
        vrt(folder / name / f"{name}.vrt", [f"{name}_{code}_10m.tif" for code in codes], 3, False, separate=True)
        truth[name] = Truth(values.astype(float), everywhere(SIZE))
    return [ExpectedSource("sentinel2-l2a", RGB, truth, gsd_m=10, left_out=("*.vrt",))]


def pictures(folder: Path, number: int) -> dict[str, Truth]:
    """Write PNG pictures in red, green and blue, and return what they hold."""
    truth = {}
    for i in range(number):
        values = byte_planes(3, SIZE, i)
        write_raster(folder / f"img_{i:04}.png", values, gsd=0, driver="PNG")
        truth[f"img_{i:04}"] = Truth(values.astype(float), everywhere(SIZE))
    return truth


def _palette(folder: Path) -> list[ExpectedSource]:
    truth = pictures(folder, 4)
    path = write_raster(folder / "classes.tif", byte_planes(1, SIZE)[0] % 16, gsd=0, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (16 * i, 255 - 16 * i, 90, 255) for i in range(16)})
    return [ExpectedSource("rgb", RGB, truth, left_out=("classes.tif",))]


def _printed(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene in range(3):
        values = byte_planes(3, SIZE, scene)
        write_raster(folder / f"photo_{scene}.tif", values, gsd=0, photometric="RGB")
        truth[f"photo_{scene}"] = Truth(values.astype(float), everywhere(SIZE))
    write_raster(folder / "poster.tif", byte_planes(4, SIZE), gsd=0, photometric="CMYK")
    return [ExpectedSource("rgb", RGB, truth, left_out=("poster.tif",))]


def _soft_alpha(folder: Path) -> list[ExpectedSource]:
    truth = pictures(folder, 4)
    rows, columns = np.indices((SIZE, SIZE))
    soft = np.clip((rows + columns) * 40 - 40, 0, 255).astype(np.uint8)
    write_raster(folder / "logo.png", np.concatenate([byte_planes(3, SIZE), soft[None]]), gsd=0, driver="PNG")
    return [ExpectedSource("rgb", RGB, truth, left_out=("logo.png",))]


def with_alpha(values: Array, seen: Bools) -> Array:
    """Return pixels (C, H, W) with a last band that is opaque where they are ``seen``."""
    return np.concatenate([values, np.where(seen, 255, 0)[None].astype(np.uint8)])


def _hard_alpha(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene in range(2):
        values, seen = byte_planes(3, SIZE, scene), everywhere(SIZE)
        seen[:4, 17 : 20 + scene] = False
        values[:, 20, 20] = 0  # black, and seen
        write_raster(folder / f"drone_{scene}.png", with_alpha(values, seen), gsd=0, driver="PNG")
        truth[f"drone_{scene}"] = Truth(values.astype(float), seen)
    return [ExpectedSource("rgb", RGB, truth)]


def _one_grey(folder: Path) -> list[ExpectedSource]:
    truth = pictures(folder, 20)
    write_raster(folder / "img_0020.png", byte_planes(1, SIZE), gsd=0, driver="PNG")
    return [ExpectedSource("rgb", RGB, truth)]


LAYOUTS: Sequence[Layout] = (
    Layout(
        "VRT mosaic over its tiles",
        "https://gdal.org/programs/gdalbuildvrt.html and https://gdal.org/drivers/raster/vrt.html: the tiles are the "
        "imagery, and no pixel counts twice",
        _mosaic,
    ),
    Layout(
        "VRT of separate bands",
        "https://gdal.org/programs/gdalbuildvrt.html, -separate, over bands named as Sentinel-2 granules name them",
        _stack,
    ),
    Layout(
        "Pictures with a palette image among them",
        "https://www.w3.org/TR/png/, colour types 2 and 3; TIFF 6.0, palette-colour images",
        _palette,
    ),
    Layout(
        "Photographs with one for the press among them",
        "TIFF 6.0, section 16, CMYK images: inks are no bands of light",
        _printed,
    ),
    Layout(
        "Pictures with a half transparent one among them",
        "https://www.w3.org/TR/png/, colour type 6: colours behind a soft edge are mixed with others",
        _soft_alpha,
    ),
    Layout(
        "Pictures with transparency of all or nothing",
        "https://www.w3.org/TR/png/, colour type 6, and GDAL's RFC 15: an alpha of 0 is no measurement",
        _hard_alpha,
    ),
    Layout(
        "Pictures with a grey one among them",
        "https://www.w3.org/TR/png/, colour types 0 and 2, as DOTA, fMoW and Million-AID mix them",
        _one_grey,
        scenes_skipped=("band",),
    ),
)
