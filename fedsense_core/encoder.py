"""The exported encoder: a folder that plain timm loads, and that also says which bands the encoder reads.

Layout, as ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads it: ``model.safetensors`` and a
``config.json`` with the architecture, its arguments and ``pretrained_cfg``. What timm has no word for (band names,
the digest of the weights, the sensors) stands in a ``fedsense`` block of the same file, which timm passes over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedsense_core.durable import sha256, whole_folder
from fedsense_core.errors import CheckpointError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
README = """# An encoder pre-trained with FedSense

    encoder = fedsense_core.load_encoder("FOLDER")                            # (B, bands, H, W) -> (B, D)
    encoder = timm.create_model("local-dir:FOLDER", pretrained=True)          # the same, with timm alone
    model = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=10)       # to fine-tune

Give it pixels that you have standardised band by band with the mean and deviation of your own imagery, in the band
order of `config.json`. In training each sensor was standardised by its own statistics, so `mean` is 0 and `std` 1.
"""


@dataclass(frozen=True)
class _Manifest:
    """The part of ``config.json`` that only FedSense writes and reads."""

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str


def export_encoder(
    encoder: nn.Module,
    folder: Path,
    *,
    architecture: str,
    model_args: Mapping[str, Any],
    bands: Sequence[str],
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    image_size: int,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write ``encoder`` to ``folder`` so that plain timm loads it, replacing an earlier export as a whole.

    ``encoder`` is the timm model ``architecture`` built with ``num_classes=0`` and ``model_args`` (values that JSON
    holds: name a normalisation layer by its timm string, such as "groupnorm"); ``mean`` and ``std`` are one number
    a band, in the unit of the pixels; ``extra`` (sensors, run) is kept in the ``fedsense`` block. The export is loaded
    back with timm before it takes its place. Raises CheckpointError when that does not give the same weights.
    """
    mean, std = _floats(mean), _floats(std)
    if not len(bands) == len(mean) == len(std):
        raise CheckpointError(
            f"cannot export: {len(bands)} bands, {len(mean)} means, {len(std)} deviations; give one of each a band."
        )
    args = {**model_args, "in_chans": len(bands)}
    with whole_folder(folder) as temporary:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
        config = {
            "architecture": architecture,
            "num_classes": 0,
            "num_features": int(cast(int, encoder.num_features)),
            "model_args": args,
            "pretrained_cfg": _pretrained_cfg(encoder, mean, std, image_size),
            "fedsense": {
                **(extra or {}),
                "bands": list(bands),
                "mean": mean,
                "std": std,
                "image_size": image_size,
                "weights_sha256": sha256(temporary / WEIGHTS),
            },
        }
        _write_config(temporary / CONFIG, config)
        (temporary / "README.md").write_text(README.replace("FOLDER", folder.name), encoding="utf-8")
        _check_same_weights(temporary, weights)


def load_encoder(folder: str | Path) -> nn.Module:
    """Load an exported encoder as an ``nn.Module`` in eval mode that maps (B, bands, H, W) to (B, D).

    It equals what timm loads from the same folder and carries ``bands`` (names in channel order), ``mean`` and ``std``
    ((bands,) tensors) as exported: 0 and 1 for inputs that are standardised by their own statistics. Raises
    CheckpointError for a missing or altered file.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if sha256(folder / WEIGHTS) != manifest.weights_sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS} is not the file that was exported: its SHA-256 differs from the one in {CONFIG}. "
            "Copy the folder again, or export the encoder again from a checkpoint of the run."
        )
    encoder = _load_with_timm(folder)
    encoder.bands = manifest.bands  # type: ignore[assignment]
    encoder.mean, encoder.std = torch.tensor(manifest.mean), torch.tensor(manifest.std)
    return encoder.eval()


def standardise(x: Tensor, mean: Tensor, std: Tensor, limit: float = 6.0) -> Tensor:
    """Return (x - mean) / std for each band of ``x`` (B, C, H, W), clamped to ±``limit`` deviations.

    The clamp keeps clouds and dead pixels from dominating; training chips are clamped at the same limit.
    """
    return ((x - mean[:, None, None]) / std[:, None, None]).clamp(-limit, limit)


def _floats(values: Sequence[float] | Tensor) -> list[float]:
    return [float(v) for v in values]


def _pretrained_cfg(encoder: nn.Module, mean: list[float], std: list[float], image_size: int) -> dict[str, Any]:
    """Return timm's pretrained_cfg; ``classifier`` and ``first_conv`` let timm change the head and the bands."""
    known = cast(dict[str, Any], getattr(encoder, "pretrained_cfg", {}))
    # Older timm (seen in 1.0.16) squeezes the named convolution from 3 bands to in_chans, whatever was saved.
    keep = ("classifier", "fixed_input_size", *(("first_conv",) if len(mean) == 3 else ()))
    return {
        **{key: known[key] for key in keep if known.get(key) is not None},
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


def _check_same_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Load ``folder`` back: timm adapts weights of another shape quietly, and a changed export must not pass."""
    loaded = _load_with_timm(folder).state_dict()
    differing = [n for n in weights.keys() | loaded.keys() if not _same(weights.get(n), loaded.get(n))]
    if differing:
        raise CheckpointError(
            f"cannot export: timm loads other weights than were written ({', '.join(sorted(differing)[:5])}). "
            "Give export_encoder the architecture and model_args that the encoder was built with."
        )


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    # Compared as bytes, so that a diverged run with NaN weights can still be exported and looked at.
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
        return _Manifest(tuple(block["bands"]), tuple(block["mean"]), tuple(block["std"]), block["weights_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} was not written by FedSense or is damaged ({error!r}). Export the encoder again; "
            "a folder of another project loads with timm.create_model('local-dir:...', pretrained=True)."
        ) from error
