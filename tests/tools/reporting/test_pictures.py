"""Pictures are pure functions of chips and encoder, for any timm ResNet or ViT."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fedsense_core.tools.reporting.pictures import (
    View,
    chip_sheet,
    feature_maps,
    nearest_neighbours,
    pca_rgb,
    reconstructions,
)
from fedsense_core.tools.reporting.tiles import to_rgb

ENCODERS = {
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}),
    "vit-registers": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "reg_tokens": 4},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]},
    ),
}


def chips(n: int, bands: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=ENCODERS)
def encoder(request) -> nn.Module:
    name, args = ENCODERS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=0, **args)


class Colour(nn.Module):
    """An encoder whose feature is the mean colour."""

    def forward(self, x):
        return x.mean((2, 3))


def test_rgb_takes_the_named_bands_in_their_order():
    x = torch.zeros(1, 4, 8, 8)
    x[:, 2, :4], x[:, 0, 4:] = 1, 1  # red above, blue below
    picture = to_rgb(x, ["blue", "green", "Red", "nir"])[0]
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0, 0] > picture[0, 0, 2]
    assert picture[7, 0, 2] > picture[7, 0, 0]


@pytest.mark.parametrize("bands", [1, 2, 13])
def test_rgb_of_other_band_counts_is_still_a_picture(bands):
    assert to_rgb(chips(2, bands)).shape == (2, 32, 32, 3)


def test_dark_chip_beside_a_bright_one_is_not_black():
    x = torch.cat([0.1 * chips(1) - 1, chips(1, seed=1) + 5])
    assert to_rgb(x)[0].std() > 10


def test_constant_chip_is_even():
    assert np.ptp(to_rgb(torch.ones(1, 3, 4, 4))) == 0


def test_sheet_has_a_row_for_each_institution_that_holds_chips():
    rows = chip_sheet({"a": chips(20), "empty": chips(0), "b": chips(3, 4)}, count=8)
    assert [(row.name, len(row.tiles)) for row in rows] == [("a", 8), ("b", 3)]


def test_neighbours_are_the_nearest_in_cosine_and_never_the_query():
    directions = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.2]])
    x = directions[:, :, None, None].expand(4, 3, 8, 8)
    rows = nearest_neighbours(Colour(), x, ["red", "red", "green", "green"], queries=2, k=2)
    assert [[tile.caption.split(",")[0] for tile in row.tiles] for row in rows] == [
        ["query: green", "green", "red"],
        ["query: red", "red", "green"],
    ]
    assert [[tile.agrees for tile in row.tiles] for row in rows] == [[None, True, False]] * 2


def test_neighbours_from_the_same_scene_are_passed_over():
    x = torch.eye(3)[[0, 0, 0, 1]][:, :, None, None].expand(4, 3, 8, 8)
    (row,) = nearest_neighbours(Colour(), x, ["q", "same", "other", "far"], torch.tensor([0, 0, 1, 2]), queries=1, k=9)
    assert row.name == "far"  # classes in alphabetical order
    rows = nearest_neighbours(Colour(), x, None, torch.tensor([0, 0, 1, 2]), queries=4, k=9)
    assert [tile.caption for tile in rows[0].tiles] == ["query", "1.00", "0.00"]
    assert len(rows[3].tiles) == 4


def test_feature_map_is_finer_than_eight_cells_and_the_encoder_keeps_its_mode(encoder):
    encoder.train()
    maps = feature_maps(encoder, chips(3))
    assert encoder.training
    assert maps.shape[0] == 3
    assert maps.shape[-1] == encoder.num_features
    assert maps.shape[1] >= 4
    if hasattr(encoder, "num_prefix_tokens"):
        tokens = encoder.eval().forward_features(chips(3))[:, encoder.num_prefix_tokens :]
        assert torch.equal(maps.reshape(3, 64, -1), tokens)


def test_pca_shows_each_chip_beside_its_features(encoder):
    rows = pca_rgb(encoder, chips(2, side=48), View(size=32))
    assert [[tile.image.shape for tile in row.tiles] for row in rows] == [[(48, 48, 3)] * 2] * 2
    again = pca_rgb(encoder, chips(2, side=48), View(size=32))
    assert np.array_equal(rows[1].tiles[1].image, again[1].tiles[1].image)


def test_features_that_differ_get_different_colours():
    class Halves(nn.Module):
        """Features that only tell left from right."""

        num_features = 5

        def forward_features(self, x):
            maps = torch.zeros(len(x), 5, 8, 8)
            maps[..., :4] = 1
            return maps

    (row,) = pca_rgb(Halves(), chips(1))
    colours = row.tiles[1].image
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 2
    assert not np.array_equal(colours[0, 0], colours[0, -1])
    assert np.array_equal(colours[0, 0], colours[-1, 0])


def test_reconstruction_keeps_what_was_seen_and_fills_what_was_hidden():
    x, predicted = chips(2), chips(2, seed=1)
    hidden = torch.zeros(2, 32, 32, dtype=torch.bool)
    hidden[:, :, 16:] = True
    for row in reconstructions(x, hidden, predicted):
        image, seen, rebuilt = (tile.image for tile in row.tiles)
        assert [tile.caption for tile in row.tiles] == ["image", "seen by the encoder", "reconstructed"]
        assert np.array_equal(image[:, :16], seen[:, :16])
        assert np.array_equal(image[:, :16], rebuilt[:, :16])
        assert (seen[:, 16:] == 128).all()
        assert not np.array_equal(image[:, 16:], rebuilt[:, 16:])
