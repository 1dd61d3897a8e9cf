"""How an encoder starts from given weights: what fits is taken, and what does not is named before
anything is trained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fedsense_core.config import Config, ModelSection
from fedsense_core.data.sites.sensors import Band
from fedsense_core.errors import ConfigError
from fedsense_core.models.band_inflation import inflate
from fedsense_core.models.first_convolution import is_ordinary, reading_layers
from fedsense_core.models.given_weights import RGB, GivenWeights, read_given
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.tensors import TensorTable

SHOWN = 3
"""Names of tensors in a message, of each kind."""


def start_from_given(model: PretrainingModel, config: Config, bands: Sequence[Band]) -> str:
    """Give the encoder of ``model`` the weights that ``model.weights`` names, and return what was
    done, for the log. The heads stay as they were drawn.

    ``bands`` are what the encoder reads, in order, unless it reads any. Its first layer is inflated
    for them; the position table of a ViT is resampled to its grid. Raises ConfigError naming what
    does not fit, and as `read_given`.
    """
    _check_that_all_travels(model, config.model)
    encoder, given = model.encoder, read_given(config.model.weights)
    wanted = encoder.state_dict()
    if config.conditioned and given.encoder is None:
        raise ConfigError(
            f"model.weights = {given.source!r} read one fixed list of bands, from which a stem for any bands cannot be "
            "made. Name the bands in data.bands with model.stem = 'plain', or start from the encoder of a run with "
            "data.bands = 'all'"
        )
    given = given if config.conditioned else given.plain(bands)
    tensors = _without_head(encoder, _of_the_encoder(given, wanted), wanted)
    words = [] if config.conditioned else _fit_first_layers(encoder, given, tensors, wanted, bands)
    words += _fit_positions(encoder, tensors, wanted)
    _check(config.model, tensors, wanted)
    encoder.load_state_dict({name: tensors[name].to(value.dtype) for name, value in wanted.items()})
    return "; ".join([f"the encoder starts from {given.source}, {len(wanted)} tensors", *words])


def _check_that_all_travels(model: PretrainingModel, settings: ModelSection) -> None:
    travelling = {spec.name for spec in TensorTable.of(model, settings.local_parameters).specs}
    kept = [n for n, _ in model.named_parameters() if n.startswith("encoder.") and n not in travelling]
    if kept:
        raise ConfigError(
            f"model.weights is sent to the clients as the first model, but model.local_parameters keeps {len(kept)} "
            f"tensors of the encoder with them ({_some(kept)}), which would stay random. Leave one of the two out"
        )


def _of_the_encoder(given: GivenWeights, wanted: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors of the encoder within a larger network, by the prefix that most of its
    names have there."""
    ends = tuple(wanted)
    counts = Counter(name.removesuffix(end) for name in given.tensors for end in ends if name.endswith(end))
    prefixes = {prefix: n for prefix, n in counts.items() if not prefix or prefix.endswith(".")}
    most = max(prefixes.values(), default=0)
    best = [prefix for prefix, n in prefixes.items() if n == most]
    if not best or "" in best:
        return dict(given.tensors)
    if len(best) > 1:
        raise ConfigError(
            f"model.weights = {given.source!r} holds the encoder {len(best)} times, below {', '.join(sorted(best))}: "
            "save one of them alone"
        )
    prefix = best[0]
    return {name.removeprefix(prefix): value for name, value in given.tensors.items() if name.startswith(prefix)}


def _without_head(encoder: nn.Module, tensors: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Return ``tensors`` without the classifier, which the encoder does not have."""
    known: Any = (getattr(encoder, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ([known] if isinstance(known, str) else known))
    return {name: value for name, value in tensors.items() if name in wanted or not name.startswith(heads or ("\0",))}


def _fit_first_layers(
    encoder: nn.Module,
    given: GivenWeights,
    tensors: dict[str, Tensor],
    wanted: Mapping[str, Tensor],
    bands: Sequence[Band],
) -> list[str]:
    """Put kernels for ``bands`` in place of those for the given bands; return a word about it."""
    words = []
    for path in reading_layers(encoder, len(bands)):
        name = f"{path}.weight"
        kernel = tensors.get(name)
        if kernel is None or kernel.ndim != 4 or name not in wanted:
            continue  # what does not fit is named later, with all else
        reads = given.bands or _usual(given, kernel.shape[1], bands)
        if [band.name for band in reads] == [band.name for band in bands]:
            continue
        lists = f"{_names(reads)}, and this run has {_names(bands)}"
        if not is_ordinary(encoder.get_submodule(path)) or kernel.shape[1] != len(reads):
            kind = type(encoder.get_submodule(path)).__name__
            raise ConfigError(
                f"model.weights = {given.source!r} read {lists}: the kernels of {path}, a {kind}, cannot be shared out "
                "among other bands. Name the same bands in data.bands, or choose another model.architecture"
            )
        tensors[name] = inflate(kernel, reads, bands)
        words.append(f"kernels of {path} for {_names(reads)} are shared out among {_names(bands)}")
    return words


def _usual(given: GivenWeights, channels: int, bands: Sequence[Band]) -> tuple[Band, ...]:
    if channels == len(RGB):
        return RGB
    if channels == len(bands):
        return tuple(bands)
    raise ConfigError(
        f"model.weights = {given.source!r} read {channels} channels, and nothing says which bands these are. This run "
        f"has {len(bands)} ({_names(bands)}): give weights of red, green and blue, of as many bands in this order, or "
        "an encoder that FedSense exported"
    )


def _fit_positions(encoder: nn.Module, tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Resample a ViT's table of positions (1, N, D) to its own grid; return a word about it."""
    table, own = tensors.get("pos_embed"), wanted.get("pos_embed")
    if not isinstance(encoder, VisionTransformer) or table is None or own is None or table.shape == own.shape:
        return []
    prefix = 0 if encoder.no_embed_class else encoder.num_prefix_tokens
    cells = table.shape[1] - prefix if table.ndim == 3 else 0
    if cells < 1 or math.isqrt(cells) ** 2 != cells or table.shape[2] != own.shape[2]:
        return []
    grid = list(encoder.patch_embed.grid_size)
    tensors["pos_embed"] = resample_abs_pos_embed(table.float(), grid, num_prefix_tokens=prefix)
    side = math.isqrt(cells)
    return [f"positions are resampled from {side} x {side} to {grid[0]} x {grid[1]} cells"]


def _check(model: ModelSection, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ConfigError unless ``tensors`` are those of the encoder, in its shapes, and finite."""
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    kinds = {"missing": missing, "not of this encoder": unknown, "of another shape": shapes, "not finite": wrong}
    if problems := [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]:
        norm = any(name.endswith("running_mean") for name in unknown)
        hint = " They were trained with batch normalisation, whose statistics differ by institution." if norm else ""
        raise ConfigError(
            f"model.weights = {model.weights!r} do not fit model.architecture = {model.architecture!r} with its "
            f"model.args and data.view_size: of {len(wanted)} tensors, {'; '.join(problems)}.{hint} Use the "
            "architecture and the model.args that the weights were made with"
        )


def _names(bands: Sequence[Band]) -> str:
    return ", ".join(band.name for band in bands)


def _some(names: Sequence[str]) -> str:
    return ", ".join(islice(names, SHOWN)) + (", ..." if len(names) > SHOWN else "")
