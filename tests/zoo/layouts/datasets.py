"""Public sets of pictures with labels: pictures are imagery, label rasters are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from zoo.framework import Array, Bools, ExpectedSource, Layout, Truth, byte_planes, everywhere, write_raster

SIZE = 32
RGB = ("red", "green", "blue")
CLASS_COLOURS = np.array([[0, 255, 255], [255, 255, 0], [255, 0, 255], [0, 255, 0], [0, 0, 255]], np.uint8)
"""As DeepGlobe and ISPRS paint their classes."""


def write_picture(path: Path, scene: int, bands: int = 3, gsd: float = 0.0, alpha: Bools | None = None) -> Truth:
    """Write a picture in the format that its suffix says, and return what a decoder makes of it."""
    values = byte_planes(bands, SIZE, scene)
    if alpha is not None:
        values = np.concatenate([np.where(alpha, values, 0), 255 * alpha[None]]).astype(np.uint8)
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    options = {"photometric": "RGB", "ALPHA": "NO" if alpha is None else "YES"} if driver == "GTiff" else {}
    if driver == "JPEG":
        options = {"QUALITY": "100"}
    write_raster(path, values, gsd=gsd, driver=driver, **options)
    if driver == "JPEG":
        with rasterio.open(path) as file:
            decoded = file.read()
        assert np.abs(decoded.astype(int) - values).max() < 8
        values = decoded
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
    return Truth(values[:bands].astype(float), everywhere(SIZE) if alpha is None else alpha)


def classes(scene: int, number: int = 5) -> Array:
    """Return a label raster (H, W): a few flat areas."""
    rows, columns = np.indices((SIZE, SIZE))
    return ((rows // 8 + columns // 16 + scene) % number).astype(np.uint8)


def write_labels(path: Path, scene: int, scale: int = 1, gsd: float = 0.0) -> None:
    """Write classes, one number each."""
    write_raster(path, classes(scene) * np.uint8(scale), gsd=gsd, driver="PNG" if path.suffix == ".png" else "GTiff")


def write_coloured_labels(path: Path, scene: int, gsd: float = 0.0) -> None:
    """Write classes, each as a colour of its own."""
    pixels = np.moveaxis(CLASS_COLOURS[classes(scene)], -1, 0)
    write_raster(path, pixels, gsd=gsd, driver="PNG" if path.suffix == ".png" else "GTiff")


def rgb(truth: dict[str, Truth], left_out: tuple[str, ...] = (), gsd_m: float | None = None) -> list[ExpectedSource]:
    """Return the one source that pictures in red, green and blue become."""
    return [ExpectedSource("rgb", RGB, truth, left_out=left_out, gsd_m=gsd_m)]


def by_class(root: str, files: Sequence[str]) -> Callable[[Path], list[ExpectedSource]]:
    """Return what writes pictures in a folder for each class."""

    def make(folder: Path) -> list[ExpectedSource]:
        return rgb({name: write_picture(folder / root / name, scene) for scene, name in enumerate(files)})

    return make


def _xbd(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("guatemala-volcano_00000003", "hurricane-florence_00000012")):
        for part, when in enumerate(("pre", "post")):
            start = f"{name}_{when}_disaster"
            truth[start] = write_picture(folder / "train" / "images" / f"{start}.png", 2 * scene + part)
            write_labels(folder / "train" / "targets" / f"{start}_target.png", scene)
            (folder / "train" / "labels").mkdir(exist_ok=True)
            (folder / "train" / "labels" / f"{start}.json").write_text("{}")
    return rgb(truth, left_out=("*_target.png",))


def _spacenet_7(folder: Path) -> list[ExpectedSource]:
    place, truth = "L15-0331E-1257N_1327_3160_13", {}
    for scene, month in enumerate(("2018_01", "2018_02")):
        name, seen = f"global_monthly_{month}_mosaic_{place}", everywhere(SIZE)
        for part, kind in enumerate(("images", "images_masked")):
            seen = seen.copy()
            seen[2:6, 3 : 3 + 4 * part] = False
            path = folder / "train" / place / kind / f"{name}.tif"
            truth[f"{kind}/{name}"] = write_picture(path, scene, gsd=4.77, alpha=seen)
        write_labels(folder / "train" / place / "UDM_masks" / f"{name}_UDM.tif", scene, gsd=4.77)
        (folder / "train" / place / "labels").mkdir(exist_ok=True)
        (folder / "train" / place / "labels" / f"{name}_Buildings.geojson").write_text("{}")
    return rgb(truth, left_out=("*_UDM.tif",), gsd_m=4.77)


def _dota_and_isaid(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, name in enumerate(("P0000", "P0001", "P0019")):
        truth[f"{name}.png"] = write_picture(folder / "train" / "images" / f"{name}.png", scene)
        write_coloured_labels(folder / "train" / "Semantic_masks" / f"{name}_instance_color_RGB.png", scene)
        write_coloured_labels(folder / "train" / "Instance_masks" / f"{name}_instance_id_RGB.png", scene + 1)
        (folder / "train" / "labelTxt").mkdir(exist_ok=True)
        (folder / "train" / "labelTxt" / f"{name}.txt").write_text("imagesource:GoogleEarth\ngsd:0.146\n")
    return rgb(truth, left_out=("*_instance_*_RGB.png",))


def _loveda(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, (part, kind, number) in enumerate(
        (("Train", "Rural", 0), ("Train", "Urban", 1366), ("Val", "Rural", 2522), ("Test", "Urban", 5987))
    ):
        truth[f"{part}/{kind}"] = write_picture(folder / part / kind / "images_png" / f"{number}.png", scene)
        if part != "Test":
            write_labels(folder / part / kind / "masks_png" / f"{number}.png", scene)
    return rgb(truth, left_out=("masks_png/*",))


def _open_earth_map(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, (region, number) in enumerate((("aachen", 1), ("aachen", 2), ("tokyo", 7))):
        start, name = folder / "OpenEarthMap_wo_xBD" / region, f"{region}_{number}.tif"
        truth[f"images/{name}"] = write_picture(start / "images" / name, scene, gsd=0.3)
        write_labels(start / "labels" / name, scene, gsd=0.3)
    (folder / "OpenEarthMap_wo_xBD" / "train.txt").write_text("aachen_1.tif\n")
    return rgb(truth, left_out=("labels/*",), gsd_m=0.3)


def _deepglobe(folder: Path) -> list[ExpectedSource]:
    truth = {}
    for scene, number in enumerate((119, 606, 2334)):
        truth[f"{number}_sat"] = write_picture(folder / "train" / f"{number}_sat.jpg", scene)
        write_coloured_labels(folder / "train" / f"{number}_mask.png", scene)
    return rgb(truth, left_out=("*_mask.png",))


def _potsdam(folder: Path) -> list[ExpectedSource]:
    truth: dict[str, dict[str, Truth]] = {"RGBIR": {}, "RGB": {}, "IRRG": {}}
    for scene, at in enumerate(("2_10", "3_11")):
        for part, (kind, place) in enumerate((("RGBIR", "4_Ortho"), ("RGB", "2_Ortho"), ("IRRG", "3_Ortho"))):
            path = folder / f"{place}_{kind}" / f"top_potsdam_{at}_{kind}.tif"
            truth[kind][f"{at}_{kind}."] = write_picture(path, 3 * scene + part, 4 if kind == "RGBIR" else 3, gsd=0.05)
        write_coloured_labels(folder / "5_Labels_all" / f"top_potsdam_{at}_label.tif", scene, gsd=0.05)
        heights = byte_planes(1, SIZE, scene)[0].astype(np.float32)
        write_raster(folder / "1_DSM" / f"dsm_potsdam_{at.zfill(5)}.tif", heights, gsd=0.05)
    return [
        ExpectedSource("aerial-rgbn", (*RGB, "nir"), truth["RGBIR"], gsd_m=0.05, left_out=("*_label.tif", "dsm_*")),
        ExpectedSource("rgb", RGB, truth["RGB"], gsd_m=0.05),
        ExpectedSource("aerial-rgbn", ("nir", "red", "green"), truth["IRRG"], gsd_m=0.05),
    ]


def _inria(folder: Path) -> list[ExpectedSource]:
    truth, root = {}, folder / "AerialImageDataset"
    for scene, (part, name) in enumerate((("train", "austin1"), ("train", "vienna36"), ("test", "bellingham1"))):
        truth[f"{part}/images/{name}"] = write_picture(root / part / "images" / f"{name}.tif", scene, gsd=0.3)
        if part == "train":
            write_raster(root / part / "gt" / f"{name}.tif", (classes(scene) > 2) * np.uint8(255), gsd=0.3)
    return rgb(truth, left_out=("gt/*",), gsd_m=0.3)


LAYOUTS: Sequence[Layout] = (
    Layout("xBD", "Gupta et al., xBD, arXiv 1911.09296, section 4, and the layout of https://xview2.org/dataset", _xbd),
    Layout(
        "SpaceNet 7",
        "https://spacenet.ai/sn7-challenge/: images, images_masked and UDM_masks; four bands, the last of which is "
        "transparency",
        _spacenet_7,
    ),
    Layout(
        "EuroSAT, RGB",
        "https://github.com/phelber/EuroSAT: EuroSAT.zip holds 2750/class/class_number.jpg",
        by_class(
            "EuroSAT/2750",
            ("AnnualCrop/AnnualCrop_1.jpg", "AnnualCrop/AnnualCrop_2.jpg", "SeaLake/SeaLake_1.jpg"),
        ),
    ),
    Layout(
        "UC Merced",
        "http://weegee.vision.ucmerced.edu/datasets/landuse.html: Images/class/class00.tif without georeference",
        by_class(
            "UCMerced_LandUse/Images",
            ("agricultural/agricultural00.tif", "agricultural/agricultural01.tif", "tenniscourt/tenniscourt99.tif"),
        ),
    ),
    Layout(
        "NWPU-RESISC45",
        "Cheng et al., https://doi.org/10.1109/jproc.2017.2675998: class/class_001.jpg",
        by_class(
            "NWPU-RESISC45", ("airplane/airplane_001.jpg", "airplane/airplane_002.jpg", "wetland/wetland_700.jpg")
        ),
    ),
    Layout(
        "fMoW, RGB",
        "https://github.com/fMoW/dataset: class/class_n/class_n_m_rgb.jpg and _msrgb.jpg",
        by_class(
            "fMoW-rgb/train",
            (
                "airport/airport_0/airport_0_0_rgb.jpg",
                "airport/airport_0/airport_0_0_msrgb.jpg",
                "zoo/zoo_12/zoo_12_3_rgb.jpg",
            ),
        ),
    ),
    Layout(
        "Million-AID",
        "Long et al., https://doi.org/10.1109/JSTARS.2021.3070368, as torchgeo.datasets.MillionAID reads it: "
        "folders of two or three levels of classes",
        by_class(
            "train",
            (
                "agriculture_land/grassland/meadow/P0115918.jpg",
                "agriculture_land/grassland/meadow/P0115919.jpg",
                "water_area/beach/P0060208.jpg",
            ),
        ),
    ),
    Layout(
        "DOTA with iSAID's masks",
        "https://captain-whu.github.io/DOTA/ and https://captain-whu.github.io/iSAID/dataset.html: images/P0000.png; "
        "P0000_instance_color_RGB.png and P0000_instance_id_RGB.png paint classes and objects",
        _dota_and_isaid,
    ),
    Layout(
        "LoveDA",
        "https://github.com/Junjue-Wang/LoveDA: images_png and masks_png under Train, Val, Test, Rural and Urban",
        _loveda,
    ),
    Layout(
        "OpenEarthMap",
        "https://open-earth-map.org: region/images/region_n.tif and region/labels/region_n.tif, of the same name",
        _open_earth_map,
    ),
    Layout(
        "DeepGlobe land cover",
        "Demir et al., arXiv 1805.06561, and http://deepglobe.org/challenge.html: id_sat.jpg and id_mask.png, classes "
        "as colours",
        _deepglobe,
    ),
    Layout(
        "ISPRS Potsdam",
        "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx: 2_Ortho_RGB, 3_Ortho_IRRG, "
        "4_Ortho_RGBIR, 5_Labels_all (classes as colours), 1_DSM",
        _potsdam,
    ),
    Layout(
        "Inria aerial image labelling",
        "https://project.inria.fr/aerialimagelabeling/contest/: images and gt, whose files have the same names, "
        "0 or 255",
        _inria,
    ),
)
