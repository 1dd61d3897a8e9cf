"""The exported encoder: a folder that plain timm loads, and that also says which bands the encoder
reads.

Layout, as ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads it:
``model.safetensors`` and a ``config.json`` with the architecture, its arguments and
``pretrained_cfg``. What timm has no word for (band names, statistics of sensors, digests) stands in
a ``fedsense`` block of the same file, which timm passes over.

An encoder of any bands is exported as the plain one for a default list of bands, beside
``bands.safetensors``: the stem that makes the first convolution for any other list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from fedsense_core.atomic_io import sha256, whole_folder
from fedsense_core.data.sites.sensors import Band, shipped_card
from fedsense_core.data.standardise import standardise as standardise  # the README of an export names it here
from fedsense_core.errors import CheckpointError
from fedsense_core.models.bands import encoder_for
from fedsense_core.models.first_convolution import USUAL_BANDS, reading_layers
from fedsense_core.models.stored_stem import (
    STEM,
    described,
    remake_first_convolution,
    restore_stem,
    write_stem,
    write_weights,
)

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
STATISTICS = ("mean", "std", "p2", "p98")
"""What is known of each band of a sensor, beside the pixel ``count``."""
README = """# An encoder pre-trained with FedSense

    encoder = fedsense_core.load_encoder("FOLDER")                            # (B, bands, H, W) -> (B, D)
    encoder = timm.create_model("local-dir:FOLDER", pretrained=True)          # the same, with timm alone
    model = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=10)       # to fine-tune

Give it pixels that you have standardised band by band with the mean and deviation of your own imagery, in the band
order of `config.json`. In training each sensor was standardised by its own statistics, so `mean` is 0 and `std` 1.
"""
README_STATISTICS = """
The statistics of these sensors, in stored counts, are in `config.json`: SENSORS. Name yours, and the encoder carries
them; `encoder.statistics_of` says whose they are, or is None where `mean` is 0 and `std` 1:

    encoder = fedsense_core.load_encoder("FOLDER", sensor="SENSOR")
    features = encoder(fedsense_core.encoder.standardise(counts, encoder.mean, encoder.std))
"""
README_BANDS = """
It was trained on any bands. `model.safetensors` is the encoder for BANDS; `bands.safetensors` makes the one for yours:

    encoder = fedsense_core.load_encoder("FOLDER", sensor="sentinel2-l2a")
    encoder = fedsense_core.load_encoder("FOLDER", sensor="sentinel2-l2a", bands=["red", "nir", "swir_1"])
    encoder = fedsense_core.load_encoder("FOLDER", bands=[Band(name="thermal", wavelength_um=10.9)])

`Band` is `fedsense_core.data.Band`. Wavelengths far from those of training are answered with a guess.
"""


@dataclass(frozen=True)
class _Manifest:
    """The part of ``config.json`` that only FedSense writes and reads."""

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str
    statistics: Mapping[str, Any]
    stem: Mapping[str, Any] | None
    """Of an encoder of any bands: ``path`` in the encoder, number of ``kernels``, and ``sha256`` of
    its file."""
    spectrum: tuple[Band, ...]
    """What the bands are; empty where an earlier release did not write it."""


def export_encoder(
    encoder: nn.Module,
    folder: Path,
    *,
    architecture: str,
    model_args: Mapping[str, Any],
    bands: Sequence[str] | Sequence[Band],
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    image_size: int,
    extra: Mapping[str, Any] | None = None,
    statistics: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write ``encoder`` to ``folder`` so that plain timm loads it, replacing an earlier export as a
    whole.

    ``encoder`` is the timm model ``architecture`` built with ``num_classes=0`` and ``model_args``
    (values that JSON holds: name a normalisation layer by its timm string, such as "groupnorm");
    ``mean`` and ``std`` are one number a band, in the unit of the pixels; ``extra`` (sensors, run)
    is kept in the ``fedsense`` block. An encoder of any bands takes ``bands`` as `Band` objects:
    those of the encoder that plain timm finds. ``statistics`` maps names of sensors to ``bands``
    (names), ``mean``, ``std``, ``p2``, ``p98`` (one number a band, in stored counts) and ``count``.
    The export is loaded back with timm before it replaces an earlier one. Raises CheckpointError
    when that does not give the same weights.
    """
    mean, std = _floats(mean), _floats(std)
    names = [band.name if isinstance(band, Band) else band for band in bands]
    if not len(names) == len(mean) == len(std):
        raise CheckpointError(
            f"cannot export: {len(names)} bands, {len(mean)} means, {len(std)} deviations; give one of each a band."
        )
    _check_statistics(statistics or {})
    args = {**model_args, "in_chans": len(names)}
    with whole_folder(folder) as temporary:
        stem = write_stem(encoder, temporary / STEM, bands)
        encoder = encoder_for(encoder, described(bands)) if stem else encoder
        weights = write_weights(encoder, temporary / WEIGHTS)
        config = {
            "architecture": architecture,
            "num_classes": 0,
            "num_features": int(cast(int, encoder.num_features)),
            "model_args": args,
            "pretrained_cfg": _pretrained_cfg(encoder, mean, std, image_size),
            "fedsense": {
                **(extra or {}),
                "bands": names,
                "mean": mean,
                "std": std,
                "image_size": image_size,
                "weights_sha256": sha256(temporary / WEIGHTS),
                **({"statistics": statistics} if statistics else {}),
                **({"stem": stem} if stem else {}),
            },
        }
        _write_config(temporary / CONFIG, config)
        readme = _readme(folder.name, names if stem else [], list(statistics or {}))
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        _check_same_weights(temporary, weights)


def load_encoder(
    folder: str | Path, bands: Sequence[str] | Sequence[Band] | None = None, sensor: str | None = None
) -> nn.Module:
    """Load an exported encoder as an ``nn.Module`` in eval mode that maps (B, bands, H, W) to (B,
    D).

    Without ``bands`` and ``sensor`` it equals what timm loads from the same folder. An encoder of
    any bands is made for those of the shipped card ``sensor`` (such as "sentinel2-l2a"), for the
    named ones of them, or for `Band` objects. It carries ``bands`` (names in channel order),
    ``mean`` and ``std`` ((bands,) tensors), and ``statistics_of``: the sensor whose stored counts
    these describe (``sensor``; where nothing is asked for, the only one that the export knows), or
    None where ``mean`` is 0 and ``std`` 1, for inputs that are standardised already. Raises
    CheckpointError for a missing or altered file, and for bands that the encoder does not read;
    SiteError for an unknown card or band.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    _check_digest(folder / WEIGHTS, manifest.weights_sha256)
    encoder, names = _load_with_timm(folder), manifest.bands
    if manifest.stem is None:
        _check_fixed(folder, names, bands)
    elif bands is not None or sensor is not None:
        wanted = described(bands, sensor)
        names = tuple(band.name for band in wanted)
        if (folder / STEM).is_file():
            _check_digest(folder / STEM, str(manifest.stem.get("sha256")))
        remake_first_convolution(encoder, folder / STEM, manifest.stem, wanted)
    if sensor is not None and sensor not in manifest.statistics:
        # A misspelt sensor must not pass as one without statistics.
        shipped_card(sensor, "load_encoder").positions(names, "load_encoder")
    if sensor is None and len(manifest.statistics) == 1 and (bands is None or manifest.stem is None):
        (sensor,) = manifest.statistics
    encoder.bands = names  # type: ignore[assignment]
    _carry_statistics(encoder, manifest, sensor)
    return encoder.eval()


def load_to_train(folder: Path) -> tuple[nn.Module, tuple[str, ...], tuple[Band, ...]]:
    """Load an exported encoder as it was trained: one of any bands with its stem for any.

    Also returns the names of the bands that plain timm finds in it, and what they are, where the
    export says so. Raises CheckpointError for a missing or altered file.
    """
    manifest = _read_manifest(folder)
    _check_digest(folder / WEIGHTS, manifest.weights_sha256)
    encoder = _load_with_timm(folder)
    if manifest.stem is not None:
        stem = restore_stem(encoder, folder / STEM, manifest.stem)
        _check_digest(folder / STEM, str(manifest.stem.get("sha256")))
        encoder.set_submodule(manifest.stem["path"], stem)
    return encoder, manifest.bands, manifest.spectrum


def _check_fixed(folder: Path, has: Sequence[str], bands: Sequence[str] | Sequence[Band] | None) -> None:
    wanted = has if bands is None else [band.name if isinstance(band, Band) else band for band in bands]
    if list(wanted) != list(has):
        raise CheckpointError(
            f"the encoder of {folder} reads {', '.join(has)}, in this order, and not {', '.join(wanted)}. Ask for "
            "these, or take an encoder that was trained with data.bands = 'all'."
        )


def _carry_statistics(encoder: nn.Module, manifest: _Manifest, sensor: str | None) -> None:
    """Set mean, std and statistics_of, where the sensor's statistics cover the encoder's bands."""
    names = cast(tuple[str, ...], encoder.bands)
    entry = manifest.statistics.get(sensor or "", {})
    mean, std = ([0.0] * len(names), [1.0] * len(names)) if names != manifest.bands else (manifest.mean, manifest.std)
    known = bool(entry) and all(name in entry["bands"] for name in names)
    if known:
        positions = [entry["bands"].index(name) for name in names]
        mean, std = [entry["mean"][i] for i in positions], [entry["std"][i] for i in positions]
    encoder.mean, encoder.std = torch.tensor(mean), torch.tensor(std)
    encoder.statistics_of = sensor if known else None  # type: ignore[assignment]


def _check_statistics(statistics: Mapping[str, Mapping[str, Any]]) -> None:
    for sensor, entry in statistics.items():
        lengths = {key: len(entry.get(key, ())) for key in ("bands", *STATISTICS)}
        if len(set(lengths.values())) != 1 or not lengths["bands"] or "count" not in entry:
            given = ", ".join(f"{n} {key}" for key, n in lengths.items())
            raise CheckpointError(
                f"cannot export: the statistics of {sensor!r} need a count, and one of each a band ({given})."
            )


def _readme(name: str, any_bands: Sequence[str], sensors: Sequence[str]) -> str:
    text = README + (README_BANDS if any_bands else "") + (README_STATISTICS if sensors else "")
    for word, value in {
        "FOLDER": name,
        "SENSORS": ", ".join(sensors),
        "SENSOR": next(iter(sensors), ""),
        "BANDS": ", ".join(any_bands),
    }.items():
        text = text.replace(word, value)
    return text


def _floats(values: Sequence[float] | Tensor) -> list[float]:
    return [float(v) for v in values]


def _pretrained_cfg(encoder: nn.Module, mean: list[float], std: list[float], image_size: int) -> dict[str, Any]:
    """Return timm's pretrained_cfg; ``classifier`` and ``first_conv`` let timm change the head and
    the bands."""
    known = cast(dict[str, Any], getattr(encoder, "pretrained_cfg", {}))
    keep = {key: known[key] for key in ("classifier", "fixed_input_size") if known.get(key) is not None}
    # Older timm (seen in 1.0.16) squeezes the named layers from 3 bands to in_chans, whatever was
    # saved, and leaves those of other encoders random: without a name it says that they do not fit.
    layers = reading_layers(encoder, len(mean)) if len(mean) == USUAL_BANDS else ()
    first_conv = {"first_conv": layers[0] if len(layers) == 1 else layers} if layers else {}
    return {
        **keep,
        **first_conv,
        "input_size": [len(mean), image_size, image_size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": mean,
        "std": std,
        "num_classes": 0,
    }


def _write_config(path: Path, config: dict[str, Any]) -> None:
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot export: the configuration of the encoder does not fit into JSON ({error}). "
            'Give model arguments as numbers and strings, for example norm_layer = "groupnorm".'
        ) from error
    path.write_text(text + "\n", encoding="utf-8")


def _load_with_timm(folder: Path) -> nn.Module:
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise CheckpointError(
            f"timm {timm.__version__} cannot build the encoder of {folder}: {error}. Install the timm version that "
            f"the run used, or compare model_args in {CONFIG} with the run's configuration."
        ) from error


def _check_digest(path: Path, digest: str) -> None:
    if sha256(path) != digest:
        raise CheckpointError(
            f"{path} is not the file that was exported: its SHA-256 differs from the one in {CONFIG}. "
            "Copy the folder again, or export the encoder again from a checkpoint of the run."
        )


def _check_same_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Load ``folder`` back: timm adapts weights of another shape quietly, and a changed export must
    not pass."""
    loaded = _load_with_timm(folder).state_dict()
    differing = [n for n in weights.keys() | loaded.keys() if not _same(weights.get(n), loaded.get(n))]
    if differing:
        raise CheckpointError(
            f"cannot export: timm loads other weights than were written ({', '.join(sorted(differing)[:5])}). "
            "Give export_encoder the architecture and model_args that the encoder was built with."
        )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    # Compared as bytes, so that a diverged run with NaN weights can still be exported and looked
    # at.
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).contiguous().view(torch.uint8)))


def _read_manifest(folder: Path) -> _Manifest:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} holds no {name}: give the folder that a run exported, usually RUN_FOLDER/encoder."
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        block = config["fedsense"]
        return _Manifest(
            tuple(block["bands"]),
            tuple(block["mean"]),
            tuple(block["std"]),
            block["weights_sha256"],
            dict(block.get("statistics", {})),
            dict(block["stem"]) if "stem" in block else None,
            tuple(Band.model_validate(band) for band in block.get("spectrum", [])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} was not written by FedSense or is damaged ({error!r}). Export the encoder again; "
            "a folder of another project loads with timm.create_model('local-dir:...', pretrained=True)."
        ) from error
