"""Commercial satellites: Planet, Maxar, Airbus and the Gaofen of China, as orders are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth, byte_planes, everywhere, levels, plane
from zoo.framework import write_raster as write

SIZE = 48
FOUR = ("blue", "green", "red", "nir")
PLANET_EIGHT = ("coastal", "blue", "green_i", "green", "yellow", "red", "red_edge_1", "nir")
UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")
WORLDVIEW = ("coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir_2")


def counts(bands: int, scene: int, first: float = 400.0) -> Array:
    """Return 16-bit planes (C, H, W) whose corner at the upper left is 0 in every band, and whose
    first band is 0 in one more pixel: dark, and measured."""
    values = np.stack([plane(level, SIZE) for level in levels(bands, scene, first)]).astype(np.uint16)
    values[:, ~filled()] = 0
    values[0, 40, 40] = 0
    return values


def filled() -> Bools:
    """Return where (H, W) `counts` have measurements."""
    valid = everywhere(SIZE)
    valid[:4, :4] = False
    return valid


def picture(path: Path, size: int = 24) -> None:
    """Write a picture for people, as JPEG."""
    write(path, np.full((3, size, size), 90, np.uint8), gsd=0, driver="JPEG")


def _planetscope(kind: str, bands: tuple[str, ...], sensor: str) -> Layout:
    names = ("20230912_175450_00_2439", "20230913_181233_51_24b6")

    def make(folder: Path) -> list[ExpectedSource]:
        truth = {}
        for scene, name in enumerate(names):
            start = folder / "PSScene"
            values, classes = counts(len(bands), scene), usable(scene)
            kept = {"descriptions": bands} if "8b" in kind else {}
            write(start / f"{name}_3B_AnalyticMS_{kind}_clip.tif", values, gsd=3, nodata=0, **kept)
            write(start / f"{name}_3B_udm2_clip.tif", classes, gsd=3, descriptions=UDM2)
            pixels = byte_planes(4, SIZE, scene)
            pixels[3] = 255
            write(start / f"{name}_3B_Visual_clip.tif", pixels, gsd=3)
            (start / f"{name}_metadata.json").write_text("{}")
            truth[name] = Truth(values.astype(float), classes[0] == 1)
        return [ExpectedSource(sensor, bands, truth, gsd_m=3, scale=1e-4, left_out=("*_Visual_clip.tif",))]

    return Layout(
        f"PlanetScope, {len(bands)} bands, with UDM2",
        "Planet, PSScene, assets ortho_analytic_4b_sr, ortho_analytic_8b_sr and ortho_udm2 "
        "(https://docs.planet.com/data/imagery/planetscope/psscene/)",
        make,
    )


def usable(scene: int) -> Array:
    """Return a usable data mask (8, H, W): fill, a cloud, light haze and shadow are not clear."""
    classes = np.zeros((8, SIZE, SIZE), np.uint8)
    classes[0], classes[6] = 1, 97
    for band, rows, columns in ((5, 20, 20 + scene), (3, 5, 36), (2, 36, 20), (1, 22, 40)):
        classes[0, rows : rows + 3, columns : columns + 3] = 0
        classes[band, rows : rows + 3, columns : columns + 3] = 1
    classes[0, ~filled()] = 0
    classes[7, ~filled()] = 1
    return classes


def _maxar_order(folder: Path) -> list[ExpectedSource]:
    truth, order = {}, "050012345010_01_P001"
    for scene, tile in enumerate(("R1C1", "R1C2")):
        values = counts(8, scene)
        corner = (500_000.0 + 96 * scene, 5_000_000.0)
        name = f"21JUN15101010-M2AS_{tile}-{order}"
        write(folder / order[:-5] / f"{order}_MUL" / f"{name}.TIF", values, gsd=2, corner=corner)
        pan = folder / order[:-5] / f"{order}_PAN" / f"21JUN15101010-P2AS_{tile}-{order}.TIF"
        write(pan, plane(300, SIZE).astype(np.uint16), gsd=0.5, corner=corner)
        truth[name] = Truth(values.astype(float), filled())
    for letter in "MP":
        place = folder / order[:-5] / f"{order}_{'MUL' if letter == 'M' else 'PAN'}"
        (place / f"21JUN15101010-{letter}2AS-{order}.IMD").write_text(imd("Multi" if letter == "M" else "P"))
        picture(place / f"21JUN15101010-{letter}2AS-{order}-BROWSE.JPG")
    return [ExpectedSource("worldview2", WORLDVIEW, truth, gsd_m=2, left_out=("*-P2AS_*", "*-BROWSE.JPG"))]


def imd(band_id: str) -> str:
    """Return the part of an image metadata file that names the satellite and its bands in order."""
    codes = ("C", "B", "G", "Y", "R", "RE", "N", "N2") if band_id == "Multi" else ("P",)
    groups = [f"BEGIN_GROUP = BAND_{code}\n\tabsCalFactor = 1.0e-02;\nEND_GROUP = BAND_{code}" for code in codes]
    image = 'BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\n\tmode = "FullSwath";\nEND_GROUP = IMAGE_1'
    start = f'version = "AB";\nnumRows = 48;\nbandId = "{band_id}";\nbitsPerPixel = 16;'
    return "\n".join([start, *groups, image, "END;\n"])


ARD_WAVES = (0.48, 0.425, 0.545, 0.66, 0.8325, 0.605, 0.725, 0.95)
ARD_LEFT_OUT = ("*-pan.tif", "*-clouds.tif", "*-water.tif", "*-terrain-shadows.tif", "*-healthy-vegetation.tif")


def _maxar_ard(folder: Path) -> list[ExpectedSource]:
    pictures, spectra = {}, {}
    for scene, (day, name) in enumerate((("2023-02-07", "10300100E1B9D900"), ("2023-02-09", "10300100E2AAB000"))):
        place = folder / "events" / "Kahramanmaras-turkey-earthquake-23" / "ard" / "37" / "031133030223" / day
        valid = filled()
        colours, values = byte_planes(3, SIZE, scene), counts(8, scene)
        write(place / f"{name}-visual.tif", colours, gsd=0.5, mask=valid, photometric="RGB")
        write(place / f"{name}-ms.tif", values, gsd=2, mask=valid)
        write(place / f"{name}-pan.tif", values[1], gsd=0.5, mask=valid)
        for layer in ("clouds", "water", "terrain-shadows", "healthy-vegetation"):
            write(place / f"{name}-{layer}.tif", valid.astype(np.uint8), gsd=2)
        for file in (f"{name}-data-mask.gpkg", f"{name}-cloud-mask.gpkg", f"{name}.json"):
            (place / file).write_text("")
        pictures[f"{name}-visual"] = Truth(colours.astype(float), valid)
        spectra[f"{name}-ms"] = Truth(values.astype(float), valid)
    bands = tuple(f"band_{i}" for i in range(1, 9))
    return [
        ExpectedSource("rgb", ("red", "green", "blue"), pictures, gsd_m=0.5, left_out=ARD_LEFT_OUT),
        ExpectedSource(
            "custom",
            bands,
            spectra,
            gsd_m=2,
            wavelengths_um=ARD_WAVES,
            missing="wavelengths",
            answers=tuple(map(str, ARD_WAVES)),
        ),
    ]


def _gaofen(number: int, size_m: float) -> Layout:
    names = (
        f"GF{number}_PMS1_E113.3_N22.7_20170115_L1A0002122491",
        f"GF{number}_PMS1_E113.4_N23.0_20170115_L1A0002122492",
    )

    def make(folder: Path) -> list[ExpectedSource]:
        truth = {}
        for scene, name in enumerate(names):
            values = counts(4, scene, first=100) // 2
            write(folder / name / f"{name}-MSS1.tiff", values, gsd=0)
            write(folder / name / f"{name}-PAN1.tiff", np.repeat(np.repeat(values[1], 4, 0), 4, 1), gsd=0)
            for what in ("MSS1", "PAN1"):
                picture(folder / name / f"{name}-{what}.jpg")
                picture(folder / name / f"{name}-{what}_thumb.jpg")
                (folder / name / f"{name}-{what}.xml").write_text("<ProductMetaData/>")
                (folder / name / f"{name}-{what}.rpb").write_text("")
            truth[name] = Truth(values.astype(float), filled())
        return [ExpectedSource(f"gaofen{number}", FOUR, truth, gsd_m=size_m, left_out=("*-PAN1.tiff", "*.jpg"))]

    return Layout(
        f"Gaofen-{number}, level 1A",
        "China Centre for Resources Satellite Data and Application, names of Gaofen products of level 1A and bands of "
        "the PMS cameras (http://www.cresda.com): MSS1 beside PAN1, 10 bits in 16, no georeference but .rpb",
        make,
    )


AIRBUS = ("red", "green", "blue", "nir")


def _airbus(name: str, folders: str, suffix: str, size_m: float, sensor: str, dates: tuple[str, str]) -> Layout:
    def make(folder: Path) -> list[ExpectedSource]:
        truth = {}
        for scene, date in enumerate(dates):
            values = counts(4, scene)
            order = folder / f"order_{scene + 1}"
            for letter, stored, gsd in (("MS", values, size_m), ("P", values[1], size_m / 4)):
                place = order / folders.format(name=name, kind=letter)
                end = f"{name}_{letter}_{date}_ORT_1792732101-00{'1' if letter == 'P' else '2'}"
                driver = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"} if suffix == "JP2" else {}
                write(place / f"IMG_{end}_R1C1.{suffix}", stored, gsd=gsd, **driver)
                picture(place / f"PREVIEW_{end}.JPG")
                picture(place / f"ICON_{end}.JPG")
                (place / f"DIM_{end}.XML").write_text("<Dimap_Document/>")
            truth[f"order_{scene + 1}"] = Truth(values.astype(float), filled())
        left_out = (f"IMG_{name}_P_*", "PREVIEW_*", "ICON_*")
        return [ExpectedSource(sensor, AIRBUS, truth, gsd_m=size_m, left_out=left_out)]

    return Layout(
        f"{name}, DIMAP, {suffix}",
        "Airbus, Pleiades and SPOT 6/7 imagery user guides, DIMAP V2 (appendix on file and folder names): "
        "multispectral files hold B2, B1, B0, B3, which are red, green, blue and near infrared",
        make,
    )


def _rapideye(folder: Path) -> list[ExpectedSource]:
    truth, bands = {}, ("blue", "green", "red", "red_edge_1", "nir")
    for scene, name in enumerate(("3357121_2018-09-11_RE3_3A", "3357122_2018-09-12_RE4_3A")):
        values = counts(5, scene)
        write(folder / name / f"{name}_Analytic.tif", values, gsd=5)
        write(folder / name / f"{name}_udm.tif", np.zeros((5, 5), np.uint8), gsd=50)
        (folder / name / f"{name}_Analytic_metadata.xml").write_text("<EarthObservation/>")
        truth[name] = Truth(values.astype(float), filled())
    return [ExpectedSource("rapideye", bands, truth, gsd_m=5, left_out=("*_udm.tif",))]


LAYOUTS: Sequence[Layout] = (
    _planetscope("SR_harmonized", FOUR, "planetscope-4"),
    _planetscope("SR_8b_harmonized", PLANET_EIGHT, "planetscope-8"),
    Layout(
        "WorldView-2, standard order of M2AS and P2AS",
        "Maxar, Imagery Support Data (ISD) documentation: names of products and tiles, .IMD with satId and the bands "
        "in file order; 16 bits, 0 outside",
        _maxar_order,
    ),
    Layout(
        "Maxar open data, ARD",
        "Maxar, ARD user guide (https://developers.maxar.com/docs/specifications/ard-user-guide): quadkey and date "
        "folders, mask bands for nodata; the guide lists the eight bands, and no order of them in the file",
        _maxar_ard,
    ),
    _gaofen(1, 8.0),
    _gaofen(2, 4.0),
    _airbus("PHR1A", "IMG_{name}_{kind}_001", "JP2", 2.0, "pleiades", ("201605260427149", "201606120433002")),
    _airbus(
        "SPOT6",
        "PROD_{name}_001/VOL_{name}_001_A/IMG_{name}_{kind}_001_A",
        "TIF",
        6.0,
        "spot67",
        ("201701211409016", "201702131359523"),
    ),
    Layout(
        "RapidEye, level 3A",
        "Planet, Combined imagery product specification, RapidEye ortho tile: "
        "tile_date_satellite_3A_Analytic.tif of 16 bits in five bands, blue, green, red, red edge, near infrared; "
        "_udm.tif with pixels of 50 m",
        _rapideye,
    ),
)
