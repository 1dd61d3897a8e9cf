"""Maps of any encoder, at any size: levels, strides, and nothing that is changed behind anyone's
back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from labelled_toys import SMALL, exported, tiny_encoder
from torch import nn

from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.encoder import export_encoder, load_encoder
from fedsense_core.errors import ConfigError
from fedsense_core.models.bands import condition
from fedsense_core.tools.downstream.encoders import Pyramid, feature_maps, random_encoder
from fedsense_core.tools.downstream.options import TaskOptions
from fedsense_core.tools.downstream.tasks import evaluate_encoder, load_for, load_task, shipped_example

VIT = {"img_size": 32, "patch_size": 8, "depth": 4, "embed_dim": 32, "num_heads": 2}


def build(name: str, **args: Any) -> nn.Module:
    with torch.random.fork_rng():
        encoder: nn.Module = timm.create_model(name, num_classes=0, **args)
    encoder.bands = ("red", "green", "blue")  # type: ignore[assignment]
    return encoder.eval()


@pytest.mark.filterwarnings("ignore")  # of timm's resizing of position embeddings
@pytest.mark.parametrize(
    ("name", "args", "strides"),
    [
        ("resnet18", SMALL, (4, 8, 16, 32)),
        ("vit_tiny_patch16_224", VIT, (2, 4, 8, 16)),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}, (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "depths": (1, 1, 1, 1), "embed_dim": 24}, (4, 8, 16, 32)),
    ],
)
@pytest.mark.parametrize("side", [40, 96])
def test_every_family_gives_a_pyramid_with_the_strides_it_says(
    name: str, args: dict[str, Any], strides: tuple[float, ...], side: int
) -> None:
    pyramid = Pyramid(build(name, **args), side, trained=False)
    maps = pyramid(torch.randn(2, 3, side, side))
    assert pyramid.strides == strides
    assert [tuple(level.shape) for level in maps] == [
        (2, channels, pyramid.padded // stride, pyramid.padded // stride)
        for channels, stride in zip(pyramid.channels, pyramid.strides, strict=True)
    ]
    assert pyramid.padded >= side


def test_a_level_is_what_the_encoder_itself_shows() -> None:
    encoder, x = tiny_encoder(), torch.randn(2, 3, 64, 64)
    for level, own in zip(Pyramid(encoder, 64, trained=False)(x), feature_maps(encoder, x), strict=True):
        assert torch.equal(level, own)


def test_a_frozen_encoder_stays_as_it_is_and_a_trained_one_is_a_copy() -> None:
    encoder = tiny_encoder()
    frozen, trained = (Pyramid(encoder, 64, trained=one).train() for one in (False, True))
    assert not frozen.encoder.training
    assert trained.encoder.training
    assert not frozen(torch.randn(2, 3, 64, 64))[0].requires_grad
    trained(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert any(p.grad is not None for p in trained.encoder.parameters())


def test_an_architecture_whose_inside_cannot_be_seen_is_refused_with_others_named() -> None:
    encoder = nn.Flatten()
    encoder.bands = ("red",)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"feature maps of Flatten.*such as resnet50"):
        Pyramid(encoder, 64, trained=False)


def test_the_control_has_the_encoders_shape_and_other_weights_by_its_seed(tmp_path: Path) -> None:
    folder = exported(tmp_path / "encoder")
    encoder = load_encoder(folder)
    first, again, other = (random_encoder(folder, encoder, seed).state_dict() for seed in (1, 1, 2))
    assert first.keys() == encoder.state_dict().keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["conv1.weight"], encoder.state_dict()["conv1.weight"])


def test_an_encoder_of_any_bands_reads_all_that_a_task_has(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    condition(encoder, kernels=4)
    kwargs: dict[str, Any] = {"architecture": "resnet18", "model_args": SMALL, "image_size": 32}
    bands = shipped_card("rgb", "test").bands
    export_encoder(encoder, tmp_path / "any", bands=bands, mean=[0.0] * 3, std=[1.0] * 3, **kwargs)
    data = load_task("segmentation", shipped_example("segmentation"))
    loaded, plain = load_for(tmp_path / "any", data), load_for(exported(tmp_path / "plain"), data)
    assert loaded.bands == data.bands
    assert plain.bands == ("red", "green", "blue")
    control = random_encoder(tmp_path / "any", loaded, 0)
    options = TaskOptions(heads=("linear",), seeds=1, most_steps=2, device="cpu")
    for one in (loaded, plain, control):
        (result,) = evaluate_encoder(one, data, options)
        assert 0 <= result.value <= 1
