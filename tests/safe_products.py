"""Small products named and built as the Copernicus hub delivers them.

Names: Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), of which
``S2B_MSIL2A_20230605T101559_N0509_R065_T32TQM_20230605T134210.SAFE`` is an example in use;
Sentinel-1 Product Specification (S1-RS-MDA-52-7441), section 3.4.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from jpeg2000_files import jpeg2000

L2A = "S2B_MSIL2A_20230605T101559_N0509_R065_T32TQM_20230605T134210.SAFE"
L1C = "S2A_MSIL1C_20160605T101032_N0202_R022_T32TQM_20160605T101559.SAFE"
GRD = "S1A_IW_GRDH_1SDV_20230101T053412_20230101T053437_046592_059563_1F4B.SAFE"
GRANULE = "GRANULE/L2A_T32TQM_A032620_20230605T102131"
TILE = "T32TQM_20230605T101559"
RESOLUTIONS = {
    10: ("AOT", "B02", "B03", "B04", "B08", "TCI", "WVP"),
    20: ("AOT", "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B11", "B12", "B8A", "SCL", "TCI", "WVP"),
    60: ("AOT", "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B11", "B12", "B8A", "SCL", "TCI", "WVP"),
}
"""Files of level 2A by metres a pixel, since baseline 04.00."""
SIDE_10M = 192


def write_l2a(folder: Path, clouds: slice = slice(0, 0), seed: int = 0) -> Path:
    """Write a product of level 2A. ``clouds`` are rows of 20 m; all else is soil."""
    for name, content in _l2a(clouds.start, clouds.stop, seed).items():
        (folder / L2A / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / L2A / name).write_bytes(content)
    return folder / L2A


@lru_cache(maxsize=8)
def _l2a(cloudy: int, clear: int, seed: int) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    files = {"MTD_MSIL2A.xml": METADATA.encode()}
    for metres, names in RESOLUTIONS.items():
        side = SIDE_10M * 10 // metres
        for name in names:
            image = random.integers(2000, 9000, (1, side, side)).astype("uint16")
            if name == "SCL":
                image = np.full((1, side, side), 5, "uint8")
                image[:, cloudy * 20 // metres : clear * 20 // metres] = 9
            elif name == "TCI":
                image = random.integers(1, 255, (3, side, side)).astype("uint8")
            files[f"{GRANULE}/IMG_DATA/R{metres}m/{TILE}_{name}_{metres}m.jp2"] = jpeg2000(image, metres=metres)
    # Masks of the detectors are named by bands, too.
    files[f"{GRANULE}/QI_DATA/MSK_DETFOO_B02.jp2"] = jpeg2000(np.ones((1, 64, 64), "uint8"))
    files[f"{GRANULE}/QI_DATA/MSK_CLDPRB_20m.jp2"] = jpeg2000(np.ones((1, 64, 64), "uint8"), metres=20)
    return files


METADATA = """<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE></Product_Info>
<Product_Image_Characteristics><BOA_ADD_OFFSET_VALUES_LIST>
<BOA_ADD_OFFSET band_id="0">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET>
</BOA_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>
"""


def write_grd(folder: Path) -> Path:
    """Write a ground range detected product in two polarisations."""
    random, root = np.random.default_rng(0), folder / GRD
    for number, name in ((1, "vv"), (2, "vh")):
        path = root / "measurement" / f"s1a-iw-grd-{name}-20230101t053412-20230101t053437-046592-059563-00{number}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = random.integers(20, 800, (1, 128, 128)).astype("uint16")
        with rasterio.open(path, "w", driver="GTiff", count=1, width=128, height=128, dtype="uint16") as file:
            file.write(image)
    return root


def zipped(root: Path, method: int = zipfile.ZIP_STORED, **more: Any) -> Path:
    """Put a product into an archive beside it, as downloads are; ``more`` are members by name."""
    path = root.parent / f"{root.name}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent).as_posix())
        for name, content in more.items():
            archive.writestr(name, content)
    return path


def band_file(root: Path, band: str, metres: int) -> Path:
    """Return a band's file of a product of level 2A."""
    return root / GRANULE / "IMG_DATA" / f"R{metres}m" / f"{TILE}_{band}_{metres}m.jp2"
