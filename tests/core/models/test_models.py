"""Models that travel: equal on every machine that asks, and honest about what was hidden."""

from __future__ import annotations

import pytest
import timm
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsense_core.errors import ConfigError
from fedsense_core.models.masked import cell_size, patches, unpatch
from fedsense_core.models.pretraining import build_encoder, build_model, encoder_args
from fedsense_core.tensors import TensorTable


def test_one_seed_gives_one_model_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    table = TensorTable.of(first := build_model(tiny()))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(table.read(first), table.read(build_model(tiny())))
    assert not torch.equal(table.read(first), table.read(build_model(tiny(run__seed=1))))


def test_predictor_travels_where_a_loss_looks_at_it_and_leaves_the_other_weights_as_they_are() -> None:
    plain = build_model(tiny())
    fedx = {"alignment__kind": "cross"}
    for changes in ({"train__recipe": "byol"}, fedx | {"alignment__weight": 1.0}):
        model = build_model(tiny(**changes))
        names = [spec.name for spec in TensorTable.of(model).specs if spec.name.startswith("predictor.")]
        assert len(names) == 5
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
        assert model.predictor is not None
        assert model.predictor(model.project(torch.randn(4, 3, 16, 16))).shape == (4, 16)
    for changes in ({}, {"train__recipe": "lejepa"}, MASKED_VIT, fedx | {"alignment__weight": 0.0}):
        assert build_model(tiny(**changes)).predictor is None


def test_nothing_but_parameters_is_in_a_model_so_nothing_is_left_behind() -> None:
    for changes in ({}, {"train__recipe": "byol"}, MASKED_VIT, MASKED_CONV):
        assert not list(build_model(tiny(**changes)).buffers())


def test_local_parameters_stay_out_of_the_table() -> None:
    model = build_model(tiny())
    names = [spec.name for spec in TensorTable.of(model, ["projector.*"]).specs]
    assert names
    assert all(name.startswith("encoder.") for name in names)


def test_exported_arguments_build_the_same_encoder_with_plain_timm() -> None:
    config = tiny(**MASKED_VIT)
    args = encoder_args(config.model.architecture, 3, 16, config.model.args)
    plain = timm.create_model(config.model.architecture, num_classes=0, in_chans=3, **args)
    assert {n: p.shape for n, p in plain.named_parameters()} == {
        n: p.shape for n, p in build_model(config).encoder.named_parameters()
    }


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet81", {}, "not a timm model.*resnet"),
        ("resnet18", {}, "batch normalisation"),
        ("resnet18", {"norm_layer": "groupnorm", "colour": 3}, "colour"),
        ("convnext_atto", {"depths": [1, 1], "dims": [8]}, r"model\.args of 'convnext_atto': IndexError"),
    ],
)
def test_unusable_architecture_says_what_to_change(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, 3, 64, args)


def test_view_that_does_not_fit_the_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.view_size = 40 must be a multiple of 16"):
        build_model(tiny(train__recipe="mae", data__view_size=40))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"])
def test_architecture_that_cannot_hide_cells_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="works on plain ViTs"):
        build_model(tiny(train__recipe="mae", data__view_size=224, model__architecture=name, model__args={}))


def test_empty_stages_do_not_count_as_strides() -> None:
    args = {"layers": [1, 1, 1, 0], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm"}
    assert cell_size(build_encoder("resnet18", 3, 64, args), 3) == 16


@given(st.integers(1, 4), st.sampled_from([2, 4, 8]), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_patches_fit_together_again(channels: int, cell: int, grid: int) -> None:
    x = torch.randn(2, channels, cell * grid, cell * grid)
    assert torch.equal(unpatch(patches(x, cell), cell, channels, *x.shape[2:]), x)


@pytest.mark.parametrize("changes", [MASKED_VIT, MASKED_CONV], ids=["vit", "conv"])
def test_hidden_pixels_reach_neither_features_nor_predictions(changes: dict[str, object]) -> None:
    config = tiny(**changes)
    model = build_model(config).eval()
    assert model.masked is not None
    size = config.data.view_size
    x = torch.randn(3, 3, size, size)
    mask = model.masked.draw_mask(x, torch.Generator().manual_seed(0))
    cells = mask.shape[1]
    assert mask.sum(1).tolist() == [round(0.75 * cells)] * 3
    hidden = patches(x, model.masked.cell)
    hidden[mask] = 99.0
    other = unpatch(hidden, model.masked.cell, 3, size, size)
    for a, b in zip(model.masked(model.encoder, x, mask), model.masked(model.encoder, other, mask), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(
        model.masked.pool_visible(model.encoder, x, mask), model.masked.pool_visible(model.encoder, 2 * x, mask)
    )


def test_masked_loss_is_zero_for_the_truth_and_counts_hidden_cells_only() -> None:
    model = build_model(tiny(**MASKED_VIT))
    assert model.masked is not None
    x = torch.randn(2, 3, 16, 16)
    mask = model.masked.draw_mask(x, torch.Generator().manual_seed(0))
    truth = patches(x, 4)
    truth = (truth - truth.mean(2, keepdim=True)) / (truth.var(2, keepdim=True) + 1e-6).sqrt()
    assert float(model.masked.loss(truth, x, mask)) == pytest.approx(0, abs=1e-10)
    spoiled = torch.where(mask[..., None], truth, truth + 5)
    assert float(model.masked.loss(spoiled, x, mask)) == pytest.approx(0, abs=1e-10)
    assert float(model.masked.loss(truth + 2, x, mask)) == pytest.approx(4, rel=1e-4)


def test_visible_pixels_are_kept_by_a_reconstruction() -> None:
    model = build_model(tiny(**MASKED_VIT)).eval()
    assert model.masked is not None
    x = torch.randn(2, 3, 16, 16)
    mask = model.masked.draw_mask(x, torch.Generator().manual_seed(0))
    rebuilt = patches(model.masked.reconstruct(model.encoder, x, mask), 4)
    assert torch.allclose(rebuilt[~mask], patches(x, 4)[~mask])
    assert not torch.allclose(rebuilt[mask], patches(x, 4)[mask])
