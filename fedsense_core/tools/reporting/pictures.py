"""Pictures of what the institutions hold and of what the encoder sees in it.

Pure functions from chips to rows of tiles. Chips are standardised tensors, N of them with C bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsense_core.evaluation.embedding import embed, evaluating, resize
from fedsense_core.tools.reporting.tiles import Row, Tile, to_rgb

FINE_MAP = 8
"""Cells along a feature map's side below which a picture of it shows nothing; convolutional input
is enlarged then."""
MOST_ENLARGED = 4
"""Beyond this factor a convolutional network sees only blur."""


@dataclass(frozen=True)
class View:
    """How chips reach an encoder, and which of their bands a person sees."""

    size: int | None = None
    """Side to which chips are resized for the encoder, pixels."""
    device: str = "cpu"
    """Where the encoder computes."""
    bands: tuple[str, ...] = ()
    """Band names, so that red, green and blue are found; without them the first three bands are
    shown."""


def chip_sheet(chips: Mapping[str, Tensor], bands: Sequence[str] = (), count: int = 8) -> tuple[Row, ...]:
    """Return up to ``count`` evenly spaced chips of each institution; ``chips`` maps its name to
    (n, C, H, W)."""
    return tuple(
        Row(name, tuple(Tile(image) for image in to_rgb(x[_spread(len(x), count)], bands)))
        for name, x in chips.items()
        if len(x)
    )


def nearest_neighbours(
    encoder: nn.Module,
    x_NCHW: Tensor,
    labels: Sequence[str] | None = None,
    groups: Tensor | None = None,
    view: View = View(),
    *,
    queries: int = 6,
    k: int = 5,
) -> tuple[Row, ...]:
    """Return for some chips the ``k`` others nearest in cosine under ``encoder``.

    ``labels`` are class names, one a chip: queries are then taken from class after class and hits
    are marked. Chips of the query's own group (``groups`` (N,), the scene) are passed over, as
    neighbours in space are no evidence.
    """
    features = F.normalize(torch.from_numpy(embed(encoder, x_NCHW, size=view.size, device=view.device)), dim=1)
    scenes = torch.arange(len(x_NCHW)) if groups is None else torch.as_tensor(groups)
    images = to_rgb(x_NCHW, view.bands)
    rows = []
    for query in _queries(len(x_NCHW), labels, queries):
        cosine = (features @ features[query]).masked_fill(scenes == scenes[query], -math.inf)
        found = [int(i) for i in cosine.argsort(descending=True, stable=True)[:k] if cosine[i] > -math.inf]
        rows.append(_neighbour_row(images, labels, query, found, cosine))
    return tuple(rows)


def pca_rgb(encoder: nn.Module, x_NCHW: Tensor, view: View = View()) -> tuple[Row, ...]:
    """Return each chip beside its feature map, whose three principal components over all chips are
    red, green, blue."""
    maps = feature_maps(encoder, x_NCHW, view)
    colours = _principal_colours(maps)
    tiles = zip(to_rgb(x_NCHW, view.bands), colours, strict=True)
    return tuple(
        Row("", (Tile(image, "image"), Tile(_enlarge(colour, image.shape[0]), "features"))) for image, colour in tiles
    )


def reconstructions(
    x_NCHW: Tensor, hidden_NHW: Tensor, predicted_NCHW: Tensor, bands: Sequence[str] = ()
) -> tuple[Row, ...]:
    """Return chip, what the encoder saw of it, and the decoder's reconstruction of the hidden part.

    ``hidden_NHW`` is True where a pixel was hidden; ``predicted_NCHW`` is in the units of
    ``x_NCHW``.
    """
    filled = torch.where(hidden_NHW[:, None].cpu(), predicted_NCHW.cpu(), x_NCHW.cpu())
    together = to_rgb(torch.cat([x_NCHW.cpu(), filled], 3), bands)  # one stretch for both, so that colours compare
    images, rebuilt = np.split(together, 2, axis=2)
    seen = np.where(hidden_NHW[..., None].cpu().numpy(), np.uint8(128), images)
    captions = ("image", "seen by the encoder", "reconstructed")
    return tuple(
        Row("", tuple(Tile(picture, caption) for picture, caption in zip(trio, captions, strict=True)))
        for trio in zip(images, seen, rebuilt, strict=True)
    )


@torch.no_grad()
def feature_maps(encoder: nn.Module, x_NCHW: Tensor, view: View = View()) -> Tensor:
    """Return the last feature maps (N, h, w, D) float32 of a timm encoder; class and register
    tokens are left out.

    A convolutional map coarser than 8 x 8 is taken from enlarged chips, at most four times.
    """
    encoder.to(view.device)
    with evaluating(encoder):
        x = resize(x_NCHW.to(view.device).float(), view.size)
        maps = _as_map(encoder, encoder.forward_features(x))  # type: ignore[operator]
        factor = min(MOST_ENLARGED, math.ceil(FINE_MAP / maps.shape[1]))
        if factor > 1 and not hasattr(encoder, "patch_embed"):
            maps = _as_map(encoder, encoder.forward_features(resize(x, factor * x.shape[-1])))  # type: ignore[operator]
    return maps.float().cpu()


def _as_map(encoder: nn.Module, features: Tensor) -> Tensor:
    if features.ndim == 3:
        tokens = features[:, int(getattr(encoder, "num_prefix_tokens", 0)) :]
        side = math.isqrt(tokens.shape[1])
        return tokens.reshape(len(tokens), side, side, -1)
    return features if getattr(encoder, "output_fmt", "NCHW") == "NHWC" else features.permute(0, 2, 3, 1)


def _principal_colours(maps_NhwD: Tensor) -> np.ndarray:
    """Return the first three principal components of all cells as colours (N, h, w, 3) uint8."""
    cells = maps_NhwD.reshape(-1, maps_NhwD.shape[-1]).double()
    cells = cells - cells.mean(0)
    _, _, axes = torch.linalg.svd(cells, full_matrices=False)
    axes = axes[:3]
    # The sign of an axis is arbitrary: fixed, so that two runs on the same weights show the same
    # colours.
    strongest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    scores = cells @ (axes * strongest.sign()).T
    scores = F.pad(scores, (0, 3 - scores.shape[1]))
    low, high = np.percentile(scores.numpy(), (2, 98), axis=0)
    unit = np.clip((scores.numpy() - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.asarray((255 * unit).round().astype(np.uint8).reshape(*maps_NhwD.shape[:3], 3))


def _enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels up to ``side``, unsmoothed: a reader sees how coarse the map is."""
    rows = np.arange(side) * image.shape[0] // side
    columns = np.arange(side) * image.shape[1] // side
    return np.asarray(image[rows][:, columns])


def _spread(total: int, count: int) -> list[int]:
    return [i * total // min(count, total) for i in range(min(count, total))]


def _queries(total: int, labels: Sequence[str] | None, count: int) -> list[int]:
    if labels is None:
        return _spread(total, count)
    first = [list(labels).index(label) for label in sorted(set(labels))]
    return [first[i] for i in _spread(len(first), count)]


def _neighbour_row(
    images: np.ndarray, labels: Sequence[str] | None, query: int, found: list[int], cosine: Tensor
) -> Row:
    name = labels[query] if labels else ""
    tiles = [Tile(images[query], f"query: {name}" if name else "query")]
    for i in found:
        caption = f"{labels[i]}, {cosine[i]:.2f}" if labels else f"{cosine[i]:.2f}"
        tiles.append(Tile(images[i], caption, labels[i] == name if labels else None))
    return Row(name, tuple(tiles))
