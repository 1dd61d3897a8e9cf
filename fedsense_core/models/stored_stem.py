"""The stem of an exported encoder of any bands: what rebuilds its first convolution for the bands
that a user has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedsense_core.atomic_io import sha256
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.errors import CheckpointError
from fedsense_core.models.bands import BandConv2d, band_stem

STEM = "bands.safetensors"
"""The stem's file in the folder of an export."""


def write_weights(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Write all tensors of ``module`` to a safetensors file, and return them."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})
    return weights


def write_stem(encoder: nn.Module, path: Path, bands: Sequence[str] | Sequence[Band]) -> dict[str, Any] | None:
    """Write the stem of an encoder of any bands; return what rebuilds it, and the default bands.
    None if plain."""
    found = band_stem(encoder)
    if found is None:
        return None
    path_in_encoder, stem = found
    default = [band.model_dump(exclude_defaults=True) for band in described(bands)]
    write_weights(stem, path)
    return {"path": path_in_encoder, "kernels": len(stem.weights.bank), "bands": default, "sha256": sha256(path)}


def remake_first_convolution(encoder: nn.Module, path: Path, stem: Mapping[str, Any], bands: Sequence[Band]) -> None:
    """Give a loaded plain encoder the first convolution for these bands, out of the file that
    `write_stem` wrote. Raises as `restore_stem`."""
    encoder.set_submodule(stem["path"], restore_stem(encoder, path, stem).plain(bands))
    known, n = cast(dict[str, Any], encoder.pretrained_cfg), len(bands)
    changed = {"input_size": (n, *known["input_size"][1:]), "mean": [0.0] * n, "std": [1.0] * n}
    encoder.pretrained_cfg = known | changed  # type: ignore[assignment]


def restore_stem(encoder: nn.Module, path: Path, stem: Mapping[str, Any]) -> BandConv2d:
    """Return the stem for any bands of a loaded plain encoder, out of the file that `write_stem`
    wrote.

    Raises CheckpointError where that file is missing or of another encoder.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, and other bands need it: copy the folder again, as a whole.")
    try:
        conv = encoder.get_submodule(stem["path"])
        assert isinstance(conv, nn.Conv2d)
        conditioned = BandConv2d(conv, stem["kernels"])
        conditioned.load_state_dict(load_file(path))
    except (AssertionError, AttributeError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} does not fit the encoder beside it ({error}). Export it again.") from error
    return conditioned


def described(bands: Sequence[str] | Sequence[Band] | None, sensor: str | None = None) -> tuple[Band, ...]:
    """Return what each band is: as given, or as the shipped card ``sensor`` says; all of its bands
    for None.

    Raises CheckpointError for names without a sensor, which say too little, and for no band at all;
    SiteError for a card that does not ship, or a band that it does not hold.
    """
    if bands is not None and not bands:
        raise CheckpointError("bands is empty: name at least one band.")
    given = tuple(band for band in bands or () if isinstance(band, Band))
    if bands and len(given) == len(bands):
        return given
    names = [band if isinstance(band, str) else band.name for band in bands or ()]
    if sensor is None:
        raise CheckpointError(
            f"an encoder of any bands needs to know what {', '.join(names)} are: give Band objects, such as "
            'Band(name="red", wavelength_um=0.665); load_encoder also takes names together with a sensor.'
        )
    card = shipped_card(sensor, "load_encoder")
    return tuple((card.only(names, "load_encoder") if names else card).bands)
