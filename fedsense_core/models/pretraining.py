"""The encoder by timm name, and the module that travels: encoder, projector, predictor,
masked-image decoder.

Shapes: B batch, C bands, H W pixels, D features, G cells of the feature map a side, P pixels of a
cell a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fedsense_core.config import Config
from fedsense_core.data.sites.sensors import Band
from fedsense_core.errors import ConfigError, nearest
from fedsense_core.models.bands import condition, encoder_for, read_bands
from fedsense_core.models.first_convolution import USUAL_BANDS
from fedsense_core.models.masked import ConvMaskedModel, MaskedModel, VitMaskedModel

BATCH_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build_encoder(architecture: str, channels: int, image_size: int, args: Mapping[str, Any]) -> nn.Module:
    """Create a timm encoder without a classifier: (B, C, H, W) -> (B, D).

    ``image_size`` is given to architectures that are built for one (ViTs, Swin); the others take
    any. Raises ConfigError for an unknown name or argument, for values that build no network, and
    for layers that hold batch statistics, which do not average over institutions.
    """
    if not timm.is_model(architecture):
        hint = nearest(architecture, timm.list_models())
        raise ConfigError(f"model.architecture = {architecture!r} is not a timm model.{hint}")
    encoder = _create_or_explain(architecture, channels, image_size, args)
    if any(isinstance(layer, BATCH_STATISTICS) for layer in encoder.modules()):
        raise ConfigError(
            f"model.architecture = {architecture!r} has batch normalisation, whose statistics differ by institution. "
            'Add norm_layer = "groupnorm" (ResNets) to model.args in flower.toml, or choose a model without it.'
        )
    return encoder


def encoder_args(architecture: str, channels: int, image_size: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with which plain timm builds the same encoder again."""
    try:
        _create(architecture, channels, {"img_size": image_size} | dict(args))
    except TypeError:
        return dict(args)
    return {"img_size": image_size} | dict(args)


class PretrainingModel(nn.Module):
    """Encoder with the heads of its recipe. Every parameter travels unless the configuration keeps
    it local."""

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, masked: MaskedModel | None, predictor: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.masked = masked
        self.predictor = predictor

    def read_bands(self, bands: Sequence[Band]) -> None:
        """Say which bands the next batches have; only models of any bands look at it."""
        read_bands(self, bands)

    def encoder_for(self, bands: Sequence[Band]) -> nn.Module:
        """Return a plain timm encoder (B, C, H, W) -> (B, D) of images with just these bands.

        Its features are the model's. A model of fixed bands returns its own encoder.
        """
        return encoder_for(self.encoder, bands)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Return pooled features (B, D)."""
        features: Tensor = self.encoder(x_BCHW)
        return features

    def project(self, x_BCHW: Tensor) -> Tensor:
        """Return projected representations h (B, projector output)."""
        projected: Tensor = self.projector(self.encoder(x_BCHW))
        return projected


def build_model(config: Config, generator: torch.Generator | None = None) -> PretrainingModel:
    """Build the model of a run with weights drawn from ``config.run.seed``: equal on every machine
    that asks."""
    seed = config.run.seed if generator is None else int(generator.initial_seed())
    with torch.random.fork_rng(devices=[]):  # timm draws initial weights from the global generator
        torch.manual_seed(seed)
        model = config.model
        channels = USUAL_BANDS if config.conditioned else len(config.data.bands)
        encoder = build_encoder(model.architecture, channels, config.data.view_size, model.args)
        masked = _masked_model(encoder, channels, config) if config.train.traits.masks else None
        if config.conditioned:
            condition(encoder, model.band_kernels)
        hidden, out = model.projector
        projector = _head(int(encoder.num_features), hidden, out)  # type: ignore[arg-type]
        predictor = _head(out, hidden, out) if _predicts(config) else None
        return PretrainingModel(encoder, projector, masked, predictor)


def _predicts(config: Config) -> bool:
    """Return whether a loss needs predictions: BYOL's, or the global half of FedX."""
    crosses = config.alignment.relates_two_views and config.alignment_weight > 0
    return config.train.traits.needs_predictor or crosses


def _head(width: int, hidden: int, out: int) -> nn.Module:
    # Normalised by the batch at hand, without running statistics: those would be one institution's,
    # and never travel.
    norm = nn.BatchNorm1d(hidden, track_running_stats=False)
    return nn.Sequential(nn.Linear(width, hidden, bias=False), norm, nn.ReLU(), nn.Linear(hidden, out))


def _masked_model(encoder: nn.Module, channels: int, config: Config) -> MaskedModel:
    ratio = config.train.mask_ratio
    masked: MaskedModel
    if isinstance(encoder, VisionTransformer) and getattr(encoder, "dist_token", None) is None:
        masked = VitMaskedModel(encoder, channels, config.model.decoder_width, config.model.decoder_depth, ratio)
    else:
        try:
            masked = ConvMaskedModel(encoder, channels, ratio)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"train.recipe = {config.train.recipe!r} works on plain ViTs and on convolutional encoders; "
                f"{config.model.architecture!r} is neither ({error}). Use 'simclr', or another architecture"
            ) from None
    if config.data.view_size % masked.cell or config.data.view_size < 2 * masked.cell:
        raise ConfigError(
            f"data.view_size = {config.data.view_size} must be a multiple of {masked.cell} pixels, at least twice, to "
            f"hide cells of {config.model.architecture!r}; change it, or the strides in model.args"
        )
    if config.conditioned:
        masked.condition(config.model.band_kernels)
    return masked


def _create(architecture: str, channels: int, args: dict[str, Any]) -> nn.Module:
    encoder: nn.Module = timm.create_model(architecture, num_classes=0, in_chans=channels, **args)
    return encoder


def _create_or_explain(architecture: str, channels: int, image_size: int, args: Mapping[str, Any]) -> nn.Module:
    try:
        try:
            return _create(architecture, channels, {"img_size": image_size} | dict(args))
        except TypeError:
            return _create(architecture, channels, dict(args))
    except Exception as error:  # each architecture stumbles in its own way over values that do not fit together
        raise ConfigError(
            f"model.args of {architecture!r}: {type(error).__name__}: {error}. Remove or correct it in model.args."
        ) from None
