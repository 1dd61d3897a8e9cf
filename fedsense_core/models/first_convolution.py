"""Which layers of a timm encoder read the bands. timm's own word for it, ``first_conv`` of
``pretrained_cfg``, is that of the architecture as published, and misses stems that arguments
change."""

from __future__ import annotations

from torch import nn

from fedsense_core.errors import ConfigError

USUAL_BANDS = 3
"""Bands of an ordinary encoder."""


def reading_layers(encoder: nn.Module, bands: int) -> tuple[str, ...]:
    """Return the paths of the layers that read the images of an encoder built for ``bands``; none
    where no convolution does.

    They are those that timm names, where they exist and have a weight. Else it is the first
    convolution of as many channels: inside what timm names, or anywhere.
    """
    named, parts = _named(encoder), dict(encoder.named_modules())
    if named and all(path in parts and hasattr(parts[path], "weight") for path in named):
        return named
    convolutions = [path for path, part in parts.items() if isinstance(part, nn.Conv2d) and part.in_channels == bands]
    inside = [path for path in convolutions if any(path.startswith(f"{name}.") for name in named)]
    return tuple((inside or convolutions)[:1])


def first_convolution(encoder: nn.Module) -> str:
    """Return the path of the convolution that reads the bands of an encoder built for 3 of them.

    Raises ConfigError where several do, or one that is not ordinary: neither can be replaced
    without changing more.
    """
    paths = reading_layers(encoder, USUAL_BANDS)
    reason = _why_not(encoder, paths)
    if reason:
        raise ConfigError(
            f"a wavelength stem replaces the one convolution that reads the bands, but {type(encoder).__name__} "
            f"{reason}. Choose another model.architecture, or name the bands in data.bands and set "
            "model.stem = 'plain'"
        )
    return paths[0]


def is_ordinary(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution whose output is a plain sum over bands."""
    return type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros"


def _why_not(encoder: nn.Module, paths: tuple[str, ...]) -> str:
    if not paths:
        return "has none"
    if len(paths) > 1:
        return f"has several ({', '.join(paths)})"
    layer = encoder.get_submodule(paths[0])
    if not is_ordinary(layer):
        return f"has a {type(layer).__name__} there ({paths[0]}) that is not an ordinary convolution"
    return ""


def _named(encoder: nn.Module) -> tuple[str, ...]:
    named: object = (getattr(encoder, "pretrained_cfg", None) or {}).get("first_conv")
    if isinstance(named, list | tuple):
        return tuple(str(name) for name in named)
    return (named,) if isinstance(named, str) else ()
