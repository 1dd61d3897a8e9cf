"""Make the sample federation's GeoTIFFs from a folder of `.npz` chip collections.

    python -m fedsense_core.tools.sample.make_sample DATA_FOLDER

Deterministic: the same data, GDAL and seed give the same bytes. A collection holds ``x`` (n, bands,
rows, columns) and perhaps ``src`` (n,), which tells its scenes apart; a labelled one also ``y`` and
``group``. What is taken of each is in the two tables below; site files and ATTRIBUTION.md are
written by hand.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from fedsense_core.data.raster.rasters import CHIP_TAG
from fedsense_core.data.sites.locations import sample_folder

Array = NDArray[Any]

SEED = 20250315
DULL = 0.03
"""Chips that deviate less than this fraction of their collection (open water, ice) are left out:
nothing to learn."""
DEFLATE = {"compress": "deflate", "predictor": 2, "zlevel": 9, "tiled": True, "blockxsize": 64, "blockysize": 64}
"""Deflate rather than zstd: every reader has it, and its checksum finds flipped bits."""


@dataclass(frozen=True)
class Mosaic:
    """One GeoTIFF to make."""

    path: str
    collection: str
    bands: str
    """Names of the bands taken, in order, separated by spaces."""
    take: tuple[int, ...]
    """Their positions in the collection."""
    grid: tuple[int, int]
    """Rows and columns of chips."""
    source: str
    licence: str
    scene: int | None = None
    """Only chips with this ``src``."""
    drop_bits: int = 0
    """Least significant bits rounded away: below the instrument's noise they hold nothing, and do
    not compress."""


@dataclass(frozen=True)
class Labelled:
    """The labelled set to make: one mosaic for each split."""

    folder: str
    collections: tuple[tuple[str, str], ...]
    """(split, collection)"""
    bands: str
    take: tuple[int, ...]
    most_of_a_class: int
    """Classes are capped, because macro F1 is read off the rare ones."""
    columns: int
    source: str
    licence: str


NASA = "Public domain (NASA)"
USGS = "Public domain (U.S. Geological Survey)"
COPERNICUS = "Contains modified Copernicus Sentinel data; free, full and open (Copernicus data licence)"
THEIA = "Contains modified Copernicus Sentinel data, processed by CNES for Theia; open licence"
NEON = "Open data of the National Ecological Observatory Network (NEON)"
MODIS_NAME = "NASA Blue Marble Next Generation (Terra MODIS)"

MOSAICS = (
    Mosaic("modis-global/bmng.tif", "inst_A_modis_global", "red green blue", (0, 1, 2), (14, 10), MODIS_NAME, NASA, 0),
    Mosaic("modis-global/winter.tif", "inst_A_modis_global", "red green blue", (0, 1, 2), (6, 10), MODIS_NAME, NASA, 1),
    Mosaic("modis-global/summer.tif", "inst_A_modis_global", "red green blue", (0, 1, 2), (5, 8), MODIS_NAME, NASA, 2),
    Mosaic(
        "landsat8-parana/itaipu-2020-05-18.tif",
        "inst_B_landsat8_parana",
        "red green blue",
        (0, 1, 2),
        (10, 16),
        "Landsat 8 OLI, level 1 (L1TP) counts, Itaipu and Ciudad del Este, 2020-05-18",
        USGS,
        drop_bits=4,  # OLI digitises to 12 of the 16 bits
    ),
    Mosaic(
        "sentinel2-virginia/eastern-shore.tif",
        "inst_C_sentinel2_virginia",
        "red green blue nir",
        (0, 1, 2, 3),
        (8, 15),
        "Sentinel-2A MSI, level 1C, 10 m bands B04 B03 B02 B08, Eastern Shore of Virginia",
        COPERNICUS,
        drop_bits=3,
    ),
    Mosaic(
        "landsat7-saltlake/great-salt-lake.tif",
        "inst_D1_landsat7_saltlake",
        "blue green red nir swir_1 swir_2",
        (0, 1, 2, 3, 4, 6),
        (10, 13),
        "Landsat 7 ETM+, level 1 counts, south shore of the Great Salt Lake, Utah",
        USGS,
    ),
    Mosaic(
        "neon-aerial/yellowstone-2019.tif",
        "inst_E_aerial_forest",
        "red green blue",
        (0, 1, 2),
        (12, 14),
        "NEON Airborne Observation Platform camera, Yellowstone (YELL), 2019, 0.2 m",
        NEON,
        scene=0,
    ),
    Mosaic(
        "neon-aerial/san-joaquin-2018.tif",
        "inst_E_aerial_forest",
        "red green blue",
        (0, 1, 2),
        (4, 8),
        "NEON Airborne Observation Platform camera, San Joaquin Experimental Range (SJER), 2018, 0.1 m",
        NEON,
        scene=2,
    ),
    Mosaic(
        "public/landsat5-nebraska.tif",
        "public/l5_nebraska",
        "red green blue",
        (0, 1, 2),
        (4, 8),
        "Landsat 5 TM, surface reflectance, western Nebraska",
        USGS,
        drop_bits=2,
    ),
    Mosaic(
        "public/landsat7-bahamas.tif",
        "public/l7_bahamas",
        "red green blue",
        (0, 1, 2),
        (5, 8),
        "Landsat 7 ETM+, 8-bit rendering resampled to 300 m, Bahamas",
        USGS,
    ),
    Mosaic(
        "public/landsat7-olinda.tif",
        "public/l7_olinda",
        "red green blue",
        (2, 1, 0),
        (6, 6),
        "Landsat 7 ETM+, level 1 counts, Olinda, Brazil",
        USGS,
    ),
    Mosaic(
        "public/landsat-rocky-mountains.tif",
        "public/landsat_rmnp",
        "red green blue",
        (0, 1, 2),
        (5, 6),
        "Landsat, 8-bit rendering resampled to 130 m, Rocky Mountain National Park, Colorado",
        USGS,
    ),
    Mosaic(
        "public/sentinel2-desert.tif",
        "public/s2_atacama",
        "red green blue",
        (2, 1, 0),
        (3, 6),
        "Sentinel-2 MSI, desert in UTM zone 19 S, sample scene of the xarray-spatial package",
        COPERNICUS,
        drop_bits=3,
    ),
    Mosaic(
        "public/sentinel2-bouconne-2018.tif",
        "public/s2_bouconne_7dates",
        "red green blue",
        (2, 1, 0),
        (4, 6),
        "Sentinel-2 MSI, level 3A monthly syntheses of April to November 2018, forest of Bouconne, France",
        THEIA,
        drop_bits=2,
    ),
    Mosaic(
        "public/sentinel2-fields.tif",
        "public/s2_spyndex",
        "red green blue",
        (2, 1, 0),
        (5, 5),
        "Sentinel-2 MSI, sample scene of the spyndex package, place not stated",
        COPERNICUS,
        drop_bits=3,
    ),
)
LABELLED = Labelled(
    folder="labelled",
    collections=(("train", "t1_igbp10_train"), ("test", "t1_igbp10_dev")),
    bands="red green blue",
    take=(0, 1, 2),
    most_of_a_class=110,
    columns=32,
    source=f"{MODIS_NAME}; classes of MCD12C1 2019 (IGBP)",
    licence=NASA,
)


def main() -> None:
    """Read the command line and make the sample."""
    parser = argparse.ArgumentParser(description="Make the GeoTIFFs of the sample federation.")
    parser.add_argument("data", type=Path, help="folder of .npz chip collections with their MANIFEST.json")
    parser.add_argument("--out", type=Path, default=sample_folder(), help="where to write; default: the shipped sample")
    arguments = parser.parse_args()
    make_sample(arguments.data, arguments.out)
    written = sorted(arguments.out.glob("*/*.tif"))
    for path in written:
        print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(arguments.out)}")
    print(f"{sum(path.stat().st_size for path in written):>9,} bytes in all")


def make_sample(data: Path, out: Path) -> None:
    """Write every mosaic and the labelled set into ``out``."""
    for mosaic in MOSAICS:
        _make_mosaic(mosaic, data, out)
    _make_labelled(LABELLED, data, out)


def _make_mosaic(mosaic: Mosaic, data: Path, out: Path) -> None:
    with np.load(data / f"{mosaic.collection}.npz", allow_pickle=False) as collection:
        chips: Array = collection["x"]
        if mosaic.scene is not None:
            chips = chips[collection["src"] == mosaic.scene]
    chips = _lively(chips[:, mosaic.take])
    wanted = mosaic.grid[0] * mosaic.grid[1]
    if len(chips) < wanted:
        raise SystemExit(f"{mosaic.collection}: has {len(chips)} usable chips, {mosaic.path} needs {wanted}")
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(chips))[:wanted])
    chips = _rounded(chips[chosen], mosaic.drop_bits)
    _write(out / mosaic.path, chips, mosaic.grid[1], mosaic.bands, mosaic.source, mosaic.licence, mosaic.drop_bits)


def _make_labelled(labelled: Labelled, data: Path, out: Path) -> None:
    classes = json.loads((data / "MANIFEST.json").read_text())[f"{labelled.collections[0][1]}.npz"]["classes"]
    folder = out / labelled.folder
    rows: list[tuple[str, int, int, str, str, int]] = []
    for split, name in labelled.collections:
        with np.load(data / f"{name}.npz", allow_pickle=False) as collection:
            chips, labels, groups = collection["x"], collection["y"], collection["group"]
        chosen = _capped(labels, labelled.most_of_a_class)
        for cell, i in enumerate(chosen):
            row, column = divmod(cell, labelled.columns)
            rows.append((f"{split}.tif", row, column, classes[labels[i]], split, int(groups[i])))
        chips = chips[chosen][:, labelled.take]
        _write(folder / f"{split}.tif", chips, labelled.columns, labelled.bands, labelled.source, labelled.licence, 0)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("file", "row", "col", "class", "split", "group"), *rows])


def _lively(chips: Array) -> Array:
    own = chips.std(axis=(2, 3)).mean(axis=1)
    lively: Array = chips[own >= DULL * chips.std(axis=(0, 2, 3)).mean()]
    return lively


def _capped(labels: Array, most: int) -> Array:
    """Return the positions, ascending, of at most ``most`` chips of each class."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == k][:most] for k in np.unique(labels)]))


def _rounded(chips: Array, bits: int) -> Array:
    step = 1 << bits
    top = int(np.iinfo(chips.dtype).max) // step * step
    return np.minimum((chips.astype(np.int64) + step // 2) // step * step, top).astype(chips.dtype)


def _write(path: Path, chips: Array, columns: int, bands: str, source: str, licence: str, bits: int) -> None:
    n, count, size, _ = chips.shape
    rows = -(-n // columns)
    padded = np.zeros((rows * columns, *chips.shape[1:]), chips.dtype)
    padded[:n] = chips
    image = padded.reshape(rows, columns, count, size, size).transpose(2, 0, 3, 1, 4)
    image = image.reshape(count, rows * size, columns * size)
    text = f"Mosaic of {n} unrelated chips of {size} x {size} pixels, without position. {source}. {licence}."
    if bits:
        text += f" The lowest {bits} bits are rounded to zero."
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "width": image.shape[2], "height": image.shape[1], "count": count, **DEFLATE}
        with rasterio.open(path, "w", dtype=chips.dtype, **profile) as file:
            file.write(image)
            for band, name in enumerate(bands.split(), start=1):
                file.set_band_description(band, name)
            tags = {CHIP_TAG: size, "FEDSENSE_CHIPS": n, "SOURCE": source, "LICENCE": licence}
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text, **tags)


if __name__ == "__main__":
    main()
