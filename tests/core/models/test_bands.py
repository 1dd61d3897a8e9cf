"""One model for any bands: what a band is decides, neither its position in the file nor how many
there are."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from federation import MASKED_CONV, MASKED_VIT, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsense_core.config import resolve
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.errors import ConfigError
from fedsense_core.models.bands import (
    BandConv2d,
    BandLinear,
    BandWeights,
    condition,
    encoder_for,
    read_bands,
)
from fedsense_core.models.first_convolution import first_convolution
from fedsense_core.models.masked import patches, unpatch
from fedsense_core.models.pretraining import PretrainingModel, build_model
from fedsense_core.tensors import TensorTable

S2 = tuple(shipped_card("sentinel2-l1c", "test").bands)
OLI = tuple(shipped_card("landsat8-l2", "test").bands)
RADAR = (Band(name="vv", polarisation="VV"), Band(name="vh", polarisation="VH"))
ALL: dict[str, Any] = {"data__bands": "all"}
DEEP = {"layers": [1, 1, 1, 0], "channels": [16] * 4, "norm_layer": "groupnorm1", "stem_type": "deep", "stem_width": 8}
CONVNEXT = {
    "model__architecture": "convnext_atto",
    "model__args": {"depths": [1] * 4, "dims": [16] * 4, "output_stride": 8},
}
SWIN = {
    "model__architecture": "swin_tiny_patch4_window7_224",
    "model__args": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2},
}
KINDS = {
    "vit": {**MASKED_VIT, "train__recipe": "simclr"},
    "resnet": {},
    "deep-resnet": {"model__args": DEEP},
    "convnext": CONVNEXT,
    "swin": SWIN,
}
MASKED = {"mae-vit": MASKED_VIT, "mae-conv": MASKED_CONV}


def build(kind: str, **changes: Any) -> PretrainingModel:
    return build_model(tiny(**ALL, **(KINDS | MASKED)[kind], **changes)).eval()


def images(bands: int, side: int = 16, seed: int = 0, n: int = 2) -> Tensor:
    return torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def embedded(model: PretrainingModel, x: Tensor, bands: tuple[Band, ...]) -> Tensor:
    model.read_bands(bands)
    return model.embed(x)


def weights(kernels: int = 16, seed: int = 0) -> BandWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BandWeights(kernels, (8, 3, 3), 1.0).requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_bands_means_nothing_and_which_they_are_does(kind: str) -> None:
    model, bands = build(kind), (*S2[:5], *RADAR)
    x = images(len(bands))
    expected = embedded(model, x, bands)
    order = torch.randperm(len(bands), generator=torch.Generator().manual_seed(1)).tolist()
    permuted = embedded(model, x[:, order], tuple(bands[i] for i in order))
    torch.testing.assert_close(permuted, expected, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(embedded(model, x[:, order], bands), expected, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_band_listed_twice_is_every_band_listed_once(kind: str) -> None:
    model, x = build(kind), images(4)
    twice = embedded(model, torch.cat([x, x], dim=1), S2[:4] * 2)
    torch.testing.assert_close(twice, embedded(model, x, S2[:4]), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_encoder_for_some_bands_has_the_model_s_features(kind: str) -> None:
    model = build(kind)
    for bands in (S2[3:4], OLI, S2, RADAR):
        x = images(len(bands))
        plain = model.encoder_for(bands)
        assert not any(isinstance(part, BandWeights) for part in plain.modules())
        with torch.no_grad():
            assert torch.equal(plain(x), embedded(model, x, bands))
    config = tiny(**ALL, **KINDS[kind])
    args = dict(config.model.args) | ({} if "resnet" in kind or kind == "convnext" else {"img_size": 16})
    built = timm.create_model(config.model.architecture, num_classes=0, in_chans=2, **args)
    assert {n: t.shape for n, t in built.state_dict().items()} == {n: t.shape for n, t in plain.state_dict().items()}


def test_model_of_fixed_bands_is_what_it_was_and_ignores_what_it_is_told() -> None:
    model, x = build_model(tiny()).eval(), images(3)
    names = [name for name, _ in model.named_parameters()]
    assert "encoder.conv1.weight" in names
    before = model.embed(x)
    model.read_bands(RADAR)
    assert torch.equal(model.embed(x), before)
    assert model.encoder_for(RADAR) is model.encoder


@given(st.lists(st.sampled_from([*S2, *RADAR]), min_size=1, max_size=13, unique=True))
@settings(max_examples=15, deadline=None)
def test_any_one_to_thirteen_bands_are_read(bands: list[Band]) -> None:
    assert embedded(READER, images(len(bands)), tuple(bands)).isfinite().all()


READER = build("resnet")


@pytest.mark.parametrize("kind", ["vit", "mae-vit", "mae-conv"])
def test_what_travels_is_the_same_whatever_bands_a_client_has_and_is_all_there_is(kind: str) -> None:
    model = build(kind)
    table = TensorTable.of(model)
    for bands in (S2, RADAR):
        model.read_bands(bands)
        assert TensorTable.of(model).digest == table.digest
    assert {spec.name for spec in table.specs} == set(model.state_dict())
    assert not list(model.buffers())


def test_kernel_of_a_band_is_made_from_that_band_alone() -> None:
    made = weights()
    alone = torch.cat([made([band]) for band in S2])
    torch.testing.assert_close(made(S2), alone, atol=1e-6, rtol=1e-5)
    # Laid out band by band: each slice is a mixture of whole kernels of the bank.
    mixture = torch.linalg.lstsq(made.bank.flatten(1).T, made(S2).flatten(1).T)
    assert float((made.bank.flatten(1).T @ mixture.solution - made(S2).flatten(1).T).abs().max()) < 1e-4


def test_near_wavelengths_have_near_kernels_and_far_ones_have_not() -> None:
    def alike(a: Band, b: Band) -> float:
        return float(torch.cosine_similarity(*made([a, b]).flatten(1), dim=0))

    red, nir, swir = S2[3], S2[7], S2[12]
    for seed in range(3):
        made = weights(seed=seed)
        steps = [0.665 + step for step in (1e-4, 1e-3, 1e-2, 1e-1)]
        likeness = [alike(red, Band(name="x", wavelength_um=w)) for w in steps]
        assert likeness == sorted(likeness, reverse=True)
        assert likeness[1] > 0.999
        assert alike(red, OLI[3]) > 0.95
        assert max(alike(red, nir), alike(red, swir), alike(nir, swir), alike(*RADAR)) < 0.9


def test_first_output_on_three_independent_bands_has_the_variance_of_timm_s_convolution() -> None:
    ratios = []
    for seed in range(8):
        torch.manual_seed(seed)
        conv = nn.Conv2d(3, 256, 4, 4, bias=False)
        stem = BandConv2d(conv, 16).requires_grad_(False)
        read_bands(stem, (S2[1], S2[3], S2[7]))
        x = images(3, 32, seed, 8)
        ratios.append(float(stem(x).var() / conv(x).var().detach()))
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", [*KINDS, *MASKED])
def test_every_parameter_learns_and_light_says_nothing_about_radar(kind: str) -> None:
    model = build(kind).train()
    for parameter in model.parameters():  # timm starts some scales at 0, behind which nothing learns in the first step
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    side = tiny(**(KINDS | MASKED)[kind]).data.view_size

    def backward(bands: tuple[Band, ...]) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        model.read_bands(bands)
        x = images(len(bands), side, n=4)
        loss = model.project(x).square().sum()
        if model.masked is not None:
            mask = model.masked.draw_mask(x, torch.Generator().manual_seed(0))
            loss = loss + model.masked.loss(model.masked(model.encoder, x, mask)[0], x, mask)
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    light, radar = backward(S2), backward(RADAR)
    assert set(light) == set(radar) == {name for name, _ in model.named_parameters()}
    rows = {name for name in light if name.endswith("polarisations")}
    assert len(rows) == (2 if model.masked is not None else 1)
    assert all(not light[name].any() for name in rows)
    for name, gradient in radar.items():
        used = gradient[:2] if name in rows else gradient
        assert bool(used.any()), name
        assert name not in rows or not gradient[2:].any()


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_half_precision_and_frozen_copies_work(kind: str) -> None:
    model = build(kind)
    anchor = deepcopy(model).requires_grad_(False)
    x = images(7)
    full = embedded(model, x, OLI)
    anchor.read_bands(OLI)
    assert torch.equal(anchor.embed(x), full)
    model.read_bands(RADAR)
    assert torch.equal(anchor.embed(x), full)  # a copy remembers its own bands
    with torch.autocast("cpu", torch.bfloat16):
        half = anchor.embed(x)
    assert not half.requires_grad
    assert float(torch.cosine_similarity(half.float(), full).min()) > 0.99
    anchor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(anchor.encoder_for(OLI)(x), full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "mae-conv"])
def test_batch_of_unknown_or_other_bands_is_refused(kind: str) -> None:
    model = build(kind)
    with pytest.raises(ValueError, match=r"not known: call read_bands\(bands\)"):
        model.embed(images(3, 64 if kind == "mae-conv" else 16))
    model.read_bands(RADAR)
    with pytest.raises(ValueError, match=r"3 channels, but the bands read last are 2 \(vv, vh\)"):
        model.embed(images(3, 64 if kind == "mae-conv" else 16))


@pytest.mark.parametrize("kind", MASKED)
def test_pixels_of_each_band_are_predicted_from_that_band_and_lie_where_its_patches_do(kind: str) -> None:
    model = build(kind)
    side = tiny(**MASKED[kind]).data.view_size
    assert model.masked is not None
    head = model.masked.predict
    assert isinstance(head, BandLinear)
    x, cell = images(4, side), model.masked.cell
    mask = model.masked.draw_mask(x, torch.Generator().manual_seed(0))
    features = torch.randn(2, mask.shape[1], head.weights.bank.shape[2] - 1)
    model.read_bands(OLI[:4])
    with torch.no_grad():
        predicted = unpatch(head(features), cell, 4, side, side)
        model.read_bands(OLI[2:3])
        alone = unpatch(head(features), cell, 1, side, side)
        assert float((predicted[:, 2:3] - alone).abs().max()) < 1e-5
        assert float((predicted[:, 1:2] - alone).abs().max()) > 1e-2
        # The layout is that of the target: reconstructing keeps what is visible, band by band.
        model.read_bands(OLI[:4])
        rebuilt = patches(model.masked.reconstruct(model.encoder, x, mask), cell)
    assert torch.allclose(rebuilt[~mask], patches(x, cell)[~mask])


def test_hidden_cells_of_all_bands_show_one_learned_number() -> None:
    model = build("mae-conv")
    assert model.masked is not None
    assert model.masked.colour.shape == (1, 1, 1, 1)  # type: ignore[union-attr]


def test_stem_is_found_in_every_kind_of_encoder_and_others_are_refused() -> None:
    group = {"norm_layer": "groupnorm1"}
    for name, args, path in [
        ("vit_tiny_patch16_224", {}, "patch_embed.proj"),
        ("resnet18", group, "conv1"),
        ("resnet18", group | {"stem_type": "deep"}, "conv1.0"),
        ("resnet10t", group, "conv1.0"),
        ("convnext_atto", {}, "stem.0"),
    ]:
        assert first_convolution(timm.create_model(name, num_classes=0, **args)) == path
    with pytest.raises(ConfigError, match=r"Linear has none\. Choose another model\.architecture, or name the bands"):
        condition(nn.Linear(3, 3), 4)
    with pytest.raises(ConfigError, match="ResNetV2 has a StdConv2d there"):
        condition(timm.create_model("resnetv2_50x1_bit", num_classes=0), 4)
    with pytest.raises(ConfigError, match="has several"):
        condition(timm.create_model("repvgg_a0", num_classes=0), 4)


def test_bands_are_read_off_the_command_line_and_all_makes_one_model_of_them() -> None:
    assert resolve({"data.bands": "red, nir"}, {}).data.bands == ("red", "nir")
    assert resolve({}, {"data": {"bands": ["red", "nir"]}}).data.bands == ("red", "nir")
    assert resolve({"data.bands": "all"}, {}).conditioned
    assert resolve({}, {"data": {"bands": ["all"]}}).data.bands == "all"
    assert not resolve({}, {}).conditioned
    assert resolve({"model.stem": "wavelength"}, {}).conditioned
    assert not resolve({"model.stem": "plain"}, {}).conditioned


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"data.bands": "all", "model.stem": "plain"},
            "wrong configuration: model.stem = 'plain' reads one fixed list",
        ),
        ({"data.bands": "red,,nir"}, r"data\.bands = 'red,,nir'.*\"all\""),
        ({"data.bands": ""}, r"data\.bands = ''"),
        ({"data.bands": []}, r"data\.bands = \[\]"),
        ({"data.bands": 3}, r"data\.bands = 3"),
        ({"data.bands": "red,nir,red"}, r"data\.bands = .*'red' appears twice"),
        ({"model.stem": "wavelenght"}, r"model\.stem = 'wavelenght'.*'wavelength'"),
        ({"train.band_subset": 2.0}, r"train\.band_subset = 2"),
    ],
)
def test_wrong_bands_and_stems_say_what_to_change(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(wrong, {})


def test_plain_features_after_conditioning_an_encoder_by_hand() -> None:
    encoder = timm.create_model("resnet18", num_classes=0, layers=[1, 1, 1, 0], channels=[16] * 4).eval()
    assert encoder_for(encoder, RADAR) is encoder
    condition(encoder, 2)
    read_bands(encoder, RADAR)
    x = images(2)
    assert torch.equal(encoder_for(encoder, RADAR)(x), encoder(x))
