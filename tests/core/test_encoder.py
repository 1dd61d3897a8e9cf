"""The exported folder is what plain timm loads, bit for bit, and a damaged one is refused with a
remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import fedsense_core
from fedsense_core.data.standardise import standardise
from fedsense_core.encoder import export_encoder, load_encoder
from fedsense_core.errors import CheckpointError

VIT = {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
SMALL_RESNET = {"layers": [1, 1, 1, 1], "channels": [32, 32, 64, 64], "norm_layer": "groupnorm"}
CASES = [
    pytest.param("vit_tiny_patch16_224", VIT, 3, id="vit-with-other-patches"),
    pytest.param("vit_tiny_patch16_224", {**VIT, "global_pool": "avg", "class_token": False}, 5, id="vit-five-bands"),
    pytest.param("vit_tiny_patch16_224", {**VIT, "dynamic_img_size": True}, 1, id="vit-any-size-one-band"),
    pytest.param("resnet18", SMALL_RESNET, 3, id="resnet-groupnorm-by-name"),
    pytest.param("resnet18", {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32]}, 13, id="resnet-batchnorm"),
]
STEMS = {
    "resnet18": ({"layers": [1, 1, 1, 1], "channels": [8] * 4}, ["conv1"]),
    "resnet18-deep": ({"layers": [1, 1, 1, 1], "channels": [8] * 4, "stem_type": "deep", "stem_width": 8}, ["conv1.0"]),
    "resnet10t-plain": ({"channels": [8] * 4, "stem_type": ""}, ["conv1"]),
    "test_nfnet": ({}, ["stem.conv1"]),
    "convnext_atto": ({"depths": [1] * 4, "dims": [8] * 4}, ["stem.0"]),
    "convnext_atto_ols": ({"depths": [1] * 4, "dims": [8] * 4}, ["stem.0"]),
    "vit_tiny_patch16_224": (VIT, ["patch_embed.proj"]),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4},
        ["patch_embed.proj"],
    ),
    "test_efficientnet": ({}, ["conv_stem"]),
    "test_maxvit": ({"img_size": 64}, ["stem.conv1"]),
    "regnetx_002": ({}, ["stem.conv"]),
    "mobilenetv3_small_050": ({}, ["conv_stem"]),
    "repvgg_a0": ({}, ["stem.conv_kxk.conv", "stem.conv_1x1.conv"]),
    "levit_128s": ({"img_size": 64}, ["stem.conv1.linear"]),
}
"""By architecture, and what its arguments change: the layers that read the bands."""


def build(architecture: str, model_args: dict, bands: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = timm.create_model(architecture, num_classes=0, in_chans=bands, **model_args)
        for parameter in encoder.parameters():  # timm starts biases and norms at 0 and 1, which would hide a mix-up
            nn.init.normal_(parameter, std=0.05)
        for buffer in encoder.buffers():
            buffer.add_(1)
    return encoder.eval()


def export(encoder: nn.Module, folder: Path, architecture: str, model_args: dict, bands: int) -> Path:
    names = [f"B{i:02d}" for i in range(bands)]
    mean, std = torch.arange(1.0, bands + 1), torch.full((bands,), 2.5)
    export_encoder(
        encoder,
        folder,
        architecture=architecture,
        model_args=model_args,
        bands=names,
        mean=mean,
        std=std,
        image_size=64,
        extra={"sensors": {"a": "sentinel-2"}},
    )
    return folder


def chips(bands: int) -> Tensor:
    return torch.randn(2, bands, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return export(build("resnet18", SMALL_RESNET, 3), tmp_path / "encoder", "resnet18", SMALL_RESNET, 3)


@pytest.mark.parametrize(("architecture", "model_args", "bands"), CASES)
def test_plain_timm_and_load_encoder_equal_the_exported_encoder_bit_for_bit(tmp_path, architecture, model_args, bands):
    encoder = build(architecture, model_args, bands)
    folder = export(encoder, tmp_path / "my encoder #1", architecture, model_args, bands)
    with_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    loaded = load_encoder(folder)
    x = chips(bands)
    with torch.no_grad():
        expected = encoder(x)
        assert torch.equal(with_timm(x), expected)
        assert torch.equal(loaded(x), expected)
    assert expected.shape == (2, encoder.num_features)
    state = load_file(folder / "model.safetensors")
    assert state.keys() == encoder.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(("architecture", "model_args", "bands"), CASES)
def test_plain_timm_fine_tunes_the_export_with_a_new_head(tmp_path, architecture, model_args, bands):
    encoder = build(architecture, model_args, bands)
    folder = export(encoder, tmp_path / "encoder", architecture, model_args, bands)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=10).eval()
    x = chips(bands)
    with torch.no_grad():
        assert model(x).shape == (2, 10)
        assert torch.equal(model.forward_features(x), encoder.forward_features(x))


@pytest.mark.parametrize("name", STEMS)
def test_plain_timm_reads_other_bands_with_every_kind_of_stem(tmp_path, name):
    """timm makes one band's kernel the sum of all, and n bands' the three over again, times 3/n."""
    (model_args, layers), architecture = STEMS[name], name.partition("-")[0]
    folder = export(build(architecture, model_args, 3), tmp_path / "encoder", architecture, model_args, 3)
    written = load_file(folder / "model.safetensors")
    for bands in (1, 4):
        state = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=bands).state_dict()
        for layer in layers:
            kernel = written.pop(f"{layer}.weight") if bands == 4 else written[f"{layer}.weight"]
            others = kernel.sum(1, keepdim=True) if bands == 1 else kernel[:, [0, 1, 2, 0]] * 0.75
            assert torch.allclose(state[f"{layer}.weight"], others)
        rest = written.keys() - {f"{layer}.weight" for layer in layers}
        assert all(torch.equal(state[key], written[key]) for key in rest)


def test_loaded_encoder_knows_its_bands_and_statistics(exported):
    encoder = load_encoder(exported)
    assert not encoder.training
    assert encoder.bands == ("B00", "B01", "B02")
    assert encoder.mean.tolist() == [1, 2, 3]
    assert encoder.std.tolist() == [2.5, 2.5, 2.5]
    assert encoder.pretrained_cfg["mean"] == [1, 2, 3]
    assert tuple(encoder.pretrained_cfg["input_size"]) == (3, 64, 64)


def test_extra_sensor_information_is_kept_in_the_fedsense_block(exported):
    config = json.loads((exported / "config.json").read_text())
    assert config["fedsense"]["sensors"] == {"a": "sentinel-2"}
    assert config["fedsense"]["bands"] == ["B00", "B01", "B02"]
    assert config["num_classes"] == 0
    assert config["num_features"] == 64


def test_load_encoder_is_offered_by_the_package(exported):
    assert fedsense_core.load_encoder is load_encoder
    with pytest.raises(AttributeError, match="load_decoder"):
        fedsense_core.load_decoder  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, fedsense_core; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_version_is_that_of_the_project():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{fedsense_core.__version__}"\n' in project


def test_new_export_replaces_the_old_one_as_a_whole(exported):
    (exported / "stale.txt").write_text("from the old export")
    other = build("resnet18", SMALL_RESNET, 3, seed=1)
    export(other, exported, "resnet18", SMALL_RESNET, 3)
    with torch.no_grad():
        assert torch.equal(load_encoder(exported)(chips(3)), other(chips(3)))
    assert not (exported / "stale.txt").exists()
    assert [path.name for path in exported.parent.iterdir()] == ["encoder"]


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({**SMALL_RESNET, "norm_layer": "batchnorm"}, "timm"),
        ({**SMALL_RESNET, "norm_layer": nn.BatchNorm2d}, 'norm_layer = "groupnorm"'),
        ({**SMALL_RESNET, "chanels": [1]}, "chanels"),
        ({**SMALL_RESNET, "channels": [32, 32, 32, 32]}, "model_args"),
    ],
    ids=["other-norm", "not-json", "unknown-argument", "other-shape"],
)
def test_export_that_timm_would_not_load_back_is_refused_and_keeps_the_old_one(exported, model_args, message):
    before = load_encoder(exported)(chips(3))
    with pytest.raises(CheckpointError, match=message):
        export(build("resnet18", SMALL_RESNET, 3), exported, "resnet18", model_args, 3)
    assert torch.equal(load_encoder(exported)(chips(3)), before)
    assert [path.name for path in exported.parent.iterdir()] == ["encoder"]


def test_export_with_statistics_for_other_bands_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="3 bands, 1 means"):
        export_encoder(
            build("resnet18", SMALL_RESNET, 3),
            tmp_path / "encoder",
            architecture="resnet18",
            model_args=SMALL_RESNET,
            bands=["red", "green", "blue"],
            mean=[0.0],
            std=[1.0],
            image_size=64,
        )


@pytest.mark.parametrize("position", [0, 9, -1], ids=["length", "header", "last-weight"])
def test_one_flipped_bit_in_the_weights_is_detected(exported, position):
    weights = bytearray((exported / "model.safetensors").read_bytes())
    weights[position] ^= 1
    (exported / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*[Cc]opy the folder again"):
        load_encoder(exported)


def test_truncated_weights_are_detected(exported):
    weights = (exported / "model.safetensors").read_bytes()
    (exported / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="export the encoder again"):
        load_encoder(exported)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named_with_the_folder_to_give(exported, name):
    (exported / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}.*RUN_FOLDER/encoder"):
        load_encoder(exported)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere holds no config\.json"):
        load_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"architecture": "resnet18"}', '{"fedsense": {"bands": 3}}'])
def test_damaged_or_foreign_configuration_says_what_to_do(exported, text):
    (exported / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="Export the encoder again"):
        load_encoder(exported)


def test_standardise_uses_each_bands_statistics_and_clamps():
    x = torch.tensor([[[[10.0]], [[-100.0]]]])
    assert standardise(x, torch.tensor([4.0, 0.0]), torch.tensor([3.0, 1.0])).flatten().tolist() == [2.0, -6.0]


def test_loading_an_encoder_imports_neither_raster_readers_nor_federation_nor_plots(tmp_path: Path) -> None:
    """A user of an exported encoder needs torch and timm alone."""
    folder = export(build("resnet18", SMALL_RESNET, 3), tmp_path / "encoder", "resnet18", SMALL_RESNET, 3)
    program = (
        "import sys; from fedsense_core import load_encoder; load_encoder(sys.argv[1])\n"
        "heavy = {'rasterio', 'flwr', 'ray', 'matplotlib', 'sklearn', 'rich', 'typer', 'jinja2'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    found = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
