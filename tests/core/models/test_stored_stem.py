"""An exported encoder of any bands: plain timm finds the default, everybody else the encoder for
their own bands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from federation import MASKED_VIT, tiny
from torch import Tensor

from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.data.standardise import standardise
from fedsense_core.encoder import export_encoder, load_encoder
from fedsense_core.errors import CheckpointError, FedSenseError, SiteError
from fedsense_core.models.pretraining import PretrainingModel, build_model, encoder_args

S2 = tuple(shipped_card("sentinel2-l2a", "test").bands)
RGB = (S2[3], S2[2], S2[1])
RADAR = (Band(name="VV", polarisation="VV"), Band(name="VH", polarisation="VH"))
STATISTICS = {
    "sentinel2-l2a": {
        "bands": [band.name for band in S2],
        "mean": [100.0 * i for i in range(12)],
        "std": [10.0 + i for i in range(12)],
        "p2": [0.0] * 12,
        "p98": [3000.0] * 12,
        "count": 77,
    },
    "custom": {"bands": ["VV", "VH"], "mean": [-9.0, -15.0], "std": [4.0, 5.0], "p2": [0.0] * 2, "p98": [1.0] * 2}
    | {"count": 5},
}
KINDS: dict[str, dict[str, Any]] = {"resnet": {}, "vit": {**MASKED_VIT, "train__recipe": "simclr"}}


def build(kind: str = "resnet", bands: str = "all") -> PretrainingModel:
    return build_model(tiny(**KINDS[kind], data__bands=bands)).eval()


def export(model: PretrainingModel, folder: Path, kind: str = "resnet", **changes: Any) -> Path:
    config = tiny(**KINDS[kind])
    given = {"bands": RGB, "mean": [0.0] * 3, "std": [1.0] * 3, "statistics": STATISTICS} | changes
    export_encoder(
        model.encoder,
        folder,
        architecture=config.model.architecture,
        model_args=encoder_args(config.model.architecture, 3, 16, config.model.args),
        image_size=16,
        **given,
    )
    return folder


def images(bands: int) -> Tensor:
    return torch.randn(2, bands, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def features(model: PretrainingModel, bands: tuple[Band, ...]) -> Tensor:
    model.read_bands(bands)
    return model.embed(images(len(bands)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(build(), tmp_path_factory.mktemp("run") / "encoder")


@pytest.mark.parametrize("kind", KINDS)
def test_every_sensor_gets_the_encoder_that_was_trained(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    folder = export(model, tmp_path / "encoder", kind)
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    landsat = tuple(shipped_card("landsat8-l2", "test").bands)
    with torch.no_grad():
        for loaded in (plain, load_encoder(folder)):
            assert torch.equal(loaded(images(3)), features(model, RGB))
        for arguments, bands in [
            ({"sensor": "sentinel2-l2a"}, S2),
            ({"sensor": "landsat8-l2"}, landsat),
            ({"sensor": "sentinel2-l2a", "bands": ["nir", "B04"]}, (S2[7], S2[3])),
            ({"bands": RADAR}, RADAR),
            ({"bands": [*RADAR, S2[0]]}, (*RADAR, S2[0])),
        ]:
            loaded = load_encoder(folder, **arguments)
            assert torch.equal(loaded(images(len(bands))), features(model, bands))
            assert loaded.bands == tuple(band.name for band in bands)
            assert loaded.pretrained_cfg["input_size"] == (len(bands), 16, 16)
            assert len(loaded.pretrained_cfg["mean"]) == len(bands)
            assert not loaded.training


def test_statistics_are_those_of_the_sensor_that_is_asked_for(exported: Path) -> None:
    encoder = load_encoder(exported, sensor="sentinel2-l2a", bands=["nir", "blue"])
    assert (encoder.mean.tolist(), encoder.std.tolist()) == ([700.0, 100.0], [17.0, 11.0])
    assert encoder.statistics_of == "sentinel2-l2a"
    assert standardise(torch.full((1, 2, 1, 1), 717.0), encoder.mean, encoder.std)[0, 0].item() == 1
    encoder = load_encoder(exported, sensor="custom", bands=RADAR)
    assert (encoder.mean.tolist(), encoder.statistics_of) == ([-9.0, -15.0], "custom")


@pytest.mark.parametrize(
    "arguments", [{}, {"bands": RADAR}, {"bands": RGB}, {"sensor": "landsat8-l2", "bands": ["red", "green", "blue"]}]
)
def test_without_statistics_of_these_very_bands_mean_is_zero(exported: Path, arguments: dict[str, Any]) -> None:
    encoder = load_encoder(exported, **arguments)
    assert encoder.statistics_of is None
    assert not encoder.mean.any()
    assert encoder.std.tolist() == [1.0] * len(encoder.bands)


def test_only_sensor_need_not_be_named_and_a_plain_encoder_has_statistics_too(tmp_path: Path) -> None:
    only = {"sentinel2-l2a": STATISTICS["sentinel2-l2a"]}
    for bands in ("all", "red,green,blue"):
        folder = export(build(bands=bands), tmp_path / "encoder", statistics=only)
        encoder = load_encoder(folder)
        assert encoder.mean.tolist() == load_encoder(folder, sensor="sentinel2-l2a", bands=encoder.bands).mean.tolist()
        assert (encoder.mean.tolist(), encoder.statistics_of) == ([300.0, 200.0, 100.0], "sentinel2-l2a")
        assert load_encoder(folder, sensor="aerial-rgb").statistics_of is None


def test_plain_encoder_says_which_bands_it_has(tmp_path: Path) -> None:
    folder = export(build(bands="red,green,blue"), tmp_path / "encoder")
    assert not (folder / "bands.safetensors").exists()
    assert load_encoder(folder, bands=RGB).bands == ("red", "green", "blue")
    for bands in (["red"], RADAR, ["blue", "green", "red"]):
        with pytest.raises(CheckpointError, match="reads red, green, blue, in this order, and not"):
            load_encoder(folder, bands=bands)
    with pytest.raises(SiteError, match="no band 'red'"):
        load_encoder(export(build(bands="red,green,blue"), tmp_path / "b", statistics=None), sensor="sentinel1-grd")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"bands": ["red"]}, CheckpointError, r"what red are: give Band objects.*together with a sensor"),
        ({"bands": []}, CheckpointError, "bands is empty"),
        ({"sensor": "sentinel2-l2"}, SiteError, "unknown sensor card 'sentinel2-l2'.*Did you mean 'sentinel2-l2a'"),
        ({"sensor": "sentinel2-l2a", "bands": ["nire"]}, SiteError, "no band 'nire'.*Did you mean 'nir'"),
        ({"sensor": "sentinel2-l2", "bands": RADAR}, SiteError, "Did you mean 'sentinel2-l2a'"),
    ],
)
def test_bands_that_say_too_little_or_do_not_exist_are_refused(
    exported: Path, arguments: dict[str, Any], kind: type[FedSenseError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        load_encoder(exported, **arguments)


def test_damaged_stem_is_refused_and_the_default_still_loads(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "encoder"))
    stem = folder / "bands.safetensors"
    whole = stem.read_bytes()
    stem.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"bands\.safetensors is not the file that was exported"):
        load_encoder(folder, sensor="sentinel2-l2a")
    stem.unlink()
    with pytest.raises(CheckpointError, match=r"bands\.safetensors is missing, and other bands need it"):
        load_encoder(folder, sensor="sentinel2-l2a")
    assert load_encoder(folder).bands == ("red", "green", "blue")
    stem.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    config["fedsense"]["stem"]["path"] = "conv2"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit the encoder beside it"):
        load_encoder(folder, sensor="sentinel2-l2a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ["red", "green", "blue"]}, "what red, green, blue are: give Band objects"),
        ({"statistics": {"x": {"bands": ["red"], "mean": [1.0, 2.0], "count": 3}}}, "statistics of 'x'.*2 mean, 0 std"),
    ],
)
def test_export_that_nobody_could_read_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        export(build(), tmp_path / "encoder", **changes)
    assert not (tmp_path / "encoder").exists()


def test_readme_of_the_folder_names_bands_and_sensors(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert "is the encoder for red, green, blue" in text
    assert "sentinel2-l2a, custom" in text
    described = json.loads((exported / "config.json").read_text())["fedsense"]["stem"]["bands"]
    assert [Band.model_validate(band) for band in described] == list(RGB)
