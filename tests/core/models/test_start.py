"""Starting from given weights: kernels go to the bands that they were made for, and nothing that
does not fit passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation import MASKED_VIT, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.encoder import export_encoder, load_encoder
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.models.band_inflation import inflate, shares
from fedsense_core.models.given_weights import RGB
from fedsense_core.models.pretraining import PretrainingModel, build_model, encoder_args
from fedsense_core.models.start import start_from_given

S2 = {band.name: band for band in shipped_card("sentinel2-l1c", "test").bands}
RADAR = (Band(name="VV", polarisation="VV"), Band(name="VH", polarisation="VH"))
OPTICAL = st.lists(st.sampled_from([*S2.values()]), min_size=1, max_size=6, unique=True)
FALSE_COLOUR = ("nir", "red", "green", "swir_1")
KINDS: dict[str, dict[str, Any]] = {
    "resnet": {},
    "deep-resnet": {
        "model__args": {"layers": [1], "channels": [16], "norm_layer": "groupnorm1", "stem_type": "deep"}
        | {"layers": [1, 1, 1, 0], "channels": [16] * 4, "stem_width": 8}
    },
    "convnext": {
        "model__architecture": "convnext_atto",
        "model__args": {"depths": [1] * 4, "dims": [16] * 4, "output_stride": 8},
    },
    "vit": {**MASKED_VIT, "train__recipe": "simclr"},
}


def build(kind: str = "resnet", seed: int = 0, **changes: Any) -> tuple[Config, PretrainingModel]:
    config = tiny(**(KINDS[kind] | changes), run__seed=seed)
    return config, build_model(config)


def bands_of(config: Config) -> list[Band]:
    return [] if config.data.bands == "all" else [S2[name] for name in config.data.bands]


def started(weights: Path | str, kind: str = "resnet", **changes: Any) -> PretrainingModel:
    config, model = build(kind, seed=1, model__weights=str(weights), **changes)
    start_from_given(model, config, bands_of(config))
    return model


def export(folder: Path, kind: str = "resnet", **changes: Any) -> PretrainingModel:
    """Export a model as a run does, and return it."""
    config, model = build(kind, **changes)
    bands = bands_of(config) or list(RGB)
    export_encoder(
        model.encoder,
        folder,
        architecture=config.model.architecture,
        model_args=encoder_args(config.model.architecture, len(bands), config.data.view_size, config.model.args),
        bands=bands,
        mean=[0.0] * len(bands),
        std=[1.0] * len(bands),
        image_size=config.data.view_size,
        extra={"spectrum": [band.model_dump(exclude_defaults=True) for band in bands]},
    )
    return model


def images(bands: int, side: int = 16) -> Tensor:
    return torch.randn(2, bands, side, side, generator=torch.Generator().manual_seed(0))


def same(a: Any, b: Any) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@given(OPTICAL, OPTICAL)
@settings(max_examples=60, deadline=None)
def test_every_kernel_is_shared_out_whole_whatever_the_bands(before: list[Band], after: list[Band]) -> None:
    for one, other in ((before, after), ([*before, *RADAR], after), (before, [*after, *RADAR])):
        found = shares(one, other)
        assert found.shape == (len(other), len(one))
        assert found.min() >= 0
        assert torch.allclose(found.sum(dim=0), torch.ones(len(one), dtype=torch.float64))
    kernel = torch.randn(4, len(before), 3, 3)
    assert torch.allclose(inflate(kernel, before, after).sum(1), kernel.sum(1), atol=1e-5)


def test_shares_go_by_name_then_by_wavelength_then_by_polarisation() -> None:
    def rows(before: Any, after: Any) -> list[list[float]]:
        return [[pytest.approx(value) for value in row] for row in shares(before, after).tolist()]

    pan, nir = Band(name="pan", wavelength_um=0.6125), S2["nir"]
    assert rows(RGB, [RGB[2], RGB[0], RGB[1]]) == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert rows(RGB, [*RGB, nir]) == [[0.5, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0]]  # nir is nearest to red
    assert rows(RGB, [nir]) == [[1, 1, 1]]
    assert rows(RGB[:2], [*RGB[:2], pan]) == [[2 / 3, 0], [0, 2 / 3], [1 / 3, 1 / 3]]  # halfway between the two
    assert rows([*RGB, nir], RGB) == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]  # what nobody asks for is not lost
    aerial = list(shipped_card("aerial-rgb", "test").bands)
    assert rows(RGB, aerial) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # red is red, whatever the camera
    crossed = [Band(name="hv", polarisation="HV"), Band(name="cross", polarisation="VH")]
    assert rows(RADAR, crossed) == [[1, 1 / 3], [0, 2 / 3]]
    assert rows(RGB, RADAR) == [[0.5] * 3, [0.5] * 3]


@pytest.mark.parametrize("kind", KINDS)
def test_image_whose_bands_are_all_alike_is_answered_as_by_the_given_encoder(kind: str, tmp_path: Path) -> None:
    given = export(tmp_path / "encoder", kind).eval()
    model = started(tmp_path / "encoder", kind, data__bands=FALSE_COLOUR).eval()
    grey = images(1)
    with torch.no_grad():
        assert torch.allclose(
            model.embed(grey.expand(-1, 4, -1, -1)), given.embed(grey.expand(-1, 3, -1, -1)), atol=1e-4
        )
        assert not torch.allclose(model.embed(images(4)), given.embed(images(4)[:, :3]), atol=1e-2)


def test_same_bands_in_another_order_are_the_same_kernels_in_that_order(tmp_path: Path) -> None:
    given = export(tmp_path / "encoder", data__bands=FALSE_COLOUR)
    order = ("red", "swir_1", "nir", "green")
    model = started(tmp_path / "encoder", data__bands=order)
    kernel, other = given.encoder.conv1.weight, model.encoder.conv1.weight  # type: ignore[union-attr]
    assert torch.equal(other, kernel[:, [FALSE_COLOUR.index(name) for name in order]])  # type: ignore[index]


def test_heads_stay_as_the_seed_draws_them_and_the_encoder_is_the_given_one(tmp_path: Path) -> None:
    given = export(tmp_path / "encoder")
    model = started(tmp_path / "encoder")
    assert same(model.encoder, given.encoder)
    assert same(model.projector, build(seed=1)[1].projector)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}},
        lambda tensors: {"model": {f"backbone.{n}": v for n, v in tensors.items()} | {"head.weight": torch.ones(3)}},
        lambda tensors: tensors | {"fc.weight": torch.ones(1000, 32), "fc.bias": torch.ones(1000)},
        lambda tensors: {name: value.half() for name, value in tensors.items()},
    ],
    ids=["plain", "wrapped", "within-a-network", "with-a-classifier", "half"],
)
def test_files_that_training_scripts_write_are_read(wrap: Any, tmp_path: Path) -> None:
    encoder = build()[1].encoder.half().float()
    torch.save(wrap(encoder.state_dict()), tmp_path / "weights.pth")
    assert same(started(tmp_path / "weights.pth").encoder, encoder)
    flat = wrap(encoder.state_dict())
    if all(isinstance(value, Tensor) for value in flat.values()):
        save_file(flat, tmp_path / "weights.safetensors")
        assert same(started(tmp_path / "weights.safetensors").encoder, encoder)


class Evil:
    """Runs code where a pickle is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": build()[1].encoder.state_dict(), "args": Evil(tmp_path / "ran")}, tmp_path / "weights.pth"
    )
    with pytest.raises(ConfigError, match=r"cannot be read as tensors alone \(UnpicklingError\).*state_dict"):
        started(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_what_timm_publishes_is_read_by_name_and_a_hub_out_of_reach_is_named(tmp_path: Path) -> None:
    given = export(tmp_path / "encoder")
    assert same(started(f"timm:local-dir:{tmp_path / 'encoder'}").encoder, given.encoder)
    with pytest.raises(ConfigError, match=r"no pretrained weights 'resnet18\.nothing' at hand.*reaches the hub"):
        started("timm:resnet18.nothing")


def test_folder_in_timms_layout_is_read_without_fedsense(tmp_path: Path) -> None:
    encoder = build()[1].encoder
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {}}')
    assert same(started(tmp_path).encoder, encoder)


def test_positions_of_a_vit_are_resampled_to_its_own_grid(tmp_path: Path) -> None:
    given = export(tmp_path / "encoder", "vit").encoder
    with torch.no_grad():  # a plane stays a plane
        rows = torch.arange(4.0).repeat_interleave(4)
        given.pos_embed[0, 1:] = rows[:, None]  # type: ignore[index]
    save_file(given.state_dict(), tmp_path / "vit.safetensors")
    table = started(tmp_path / "vit.safetensors", "vit", data__view_size=32).encoder.pos_embed
    assert table.shape == (1, 65, 32)  # type: ignore[union-attr]
    assert torch.equal(table[:, 0], given.pos_embed[:, 0])  # type: ignore[index]
    resampled = table[0, 1:, 0].view(8, 8)  # type: ignore[index]
    assert torch.allclose(resampled[2:6, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, r"of 30 tensors, 1 missing \(layer1\.0\.conv1\.weight\)\. Use the arch"),
        ({"odd": torch.ones(2), "even": torch.ones(2)}, r"2 not of this encoder \(odd, even\)"),
        (
            {"conv1.weight": torch.ones(32, 3, 3, 3)},
            r"1 of another shape \(conv1\.weight \(32, 3, 3, 3\) for \(64, 3, 7",
        ),
        ({"bn1.weight": torch.full((32,), torch.nan)}, r"1 not finite \(bn1\.weight\)"),
        ({"bn1.running_mean": torch.ones(32)}, "trained with batch normalisation, whose statistics differ"),
        (
            {"conv1.weight": torch.ones(32, 5, 7, 7)},
            r"read 5 channels, and nothing says which.*has 3 \(red, green, blue",
        ),
    ],
)
def test_what_does_not_fit_is_counted_and_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tensors = build()[1].encoder.state_dict() | change
    torch.save({name: value for name, value in tensors.items() if value is not None}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=message):
        started(tmp_path / "weights.pth")


def test_other_architecture_is_refused_with_the_counts(tmp_path: Path) -> None:
    export(tmp_path / "encoder", "convnext")
    with pytest.raises(ConfigError, match=r"do not fit model.architecture = 'resnet18'.*30 missing .*not of this"):
        started(tmp_path / "encoder")


def test_stem_that_is_no_plain_sum_over_bands_is_refused_for_other_bands_and_taken_for_the_same(tmp_path: Path) -> None:
    changes = {"model__architecture": "test_nfnet", "model__args": {}}
    given = export(tmp_path / "encoder", **changes)
    assert same(started(tmp_path / "encoder", **changes).encoder, given.encoder)
    with pytest.raises(ConfigError, match=r"kernels of stem\.conv1, a ScaledStdConv2d, cannot be shared out"):
        started(tmp_path / "encoder", **changes, data__bands=FALSE_COLOUR)


def test_encoder_of_any_bands_starts_another_and_a_plain_one_for_any_bands(tmp_path: Path) -> None:
    given = export(tmp_path / "encoder", data__bands="all")
    assert same(started(tmp_path / "encoder", data__bands="all").encoder, given.encoder)
    plain = started(tmp_path / "encoder", data__bands=FALSE_COLOUR).eval()
    loaded = load_encoder(tmp_path / "encoder", bands=[S2[name] for name in FALSE_COLOUR])
    with torch.no_grad():
        assert torch.equal(plain.embed(images(4)), loaded(images(4)))
    with pytest.raises(ConfigError, match=r"encoder\.conv1|conv1\.weights\.bank \(16, .*for \(8, "):
        started(tmp_path / "encoder", data__bands="all", model__band_kernels=8)


def test_plain_weights_make_no_stem_for_any_bands(tmp_path: Path) -> None:
    export(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"one fixed list of bands.*model\.stem = 'plain'.*data\.bands = 'all'"):
        started(tmp_path / "encoder", data__bands="all")


def test_encoder_that_stays_with_clients_cannot_be_given(tmp_path: Path) -> None:
    export(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"model\.local_parameters keeps 1 tensors of the encoder .*conv1\.weight"):
        started(tmp_path / "encoder", model__local_parameters=["encoder.conv1.*"])
    started(tmp_path / "encoder", model__local_parameters=["projector.*"])


def test_missing_file_and_folder_of_a_run_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a file, nor the folder of an encoder.*coordinator's machine"):
        started(tmp_path / "nothing.pth")
    export(tmp_path / "run" / "encoder")
    with pytest.raises(ConfigError, match=r"is the folder of a run: give .*run/encoder"):
        started(tmp_path / "run")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ConfigError, match=r"text\.pth"):
        started(tmp_path / "text.pth")
    weights = tmp_path / "run" / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(CheckpointError, match="is not the file that was exported"):
        started(tmp_path / "run" / "encoder")
