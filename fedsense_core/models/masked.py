"""Masked image modelling on a timm encoder: hide cells, encode the rest, predict the pixels that
were hidden.

ViTs drop hidden tokens before the blocks (MAE, arXiv 2111.06377); convolutional encoders see a
learned colour instead and predict from the last map (SimMIM, arXiv 2111.09886). Shapes: B
batch, C bands, H W pixels, G cells a side, N = G*G cells, V visible cells, P pixels of a cell a
side, D width."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fedsense_core.models.bands import BandLinear

EPSILON = 1e-6


class MaskedModel(nn.Module):
    """Heads that turn an encoder into a masked-image model. The encoder is passed in, not owned: it
    travels once."""

    predict: nn.Module
    """From a cell's features to its pixels, in the order of ``patches``."""

    def __init__(self, cell: int, mask_ratio: float) -> None:
        super().__init__()
        self.cell = cell
        self.mask_ratio = mask_ratio

    def draw_mask(self, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Draw hidden cells (B, N) bool, the same number in every image, from a CPU generator."""
        cells = (x_BCHW.shape[2] // self.cell) * (x_BCHW.shape[3] // self.cell)
        hidden = min(cells - 1, max(1, round(cells * self.mask_ratio)))
        order_BN = torch.rand(len(x_BCHW), cells, generator=generator).argsort(dim=1)
        return (order_BN < hidden).to(x_BCHW.device)

    def condition(self, kernels: int) -> None:
        """Predict whatever bands the batch has from now on, by weights made from what each band
        is."""
        assert isinstance(self.predict, nn.Linear)
        self.predict = BandLinear(self.predict.in_features, self.cell**2, kernels)

    @abstractmethod
    def forward(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted patches (B, N, C*P*P) and the pooled, LayerNorm'ed features of visible
        cells (B, D)."""

    @abstractmethod
    def pool_visible(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the pooled, LayerNorm'ed features of the visible cells alone (B, D)."""

    def reconstruct(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the image with hidden cells replaced by what is predicted there (B, C, H, W)."""
        target_BNF = patches(x_BCHW, self.cell)
        mean, deviation = _moments(target_BNF)
        predicted_BNF = self(encoder, x_BCHW, mask_BN)[0] * deviation + mean
        filled_BNF = torch.where(mask_BN[..., None], predicted_BNF, target_BNF)
        return unpatch(filled_BNF, self.cell, x_BCHW.shape[1], x_BCHW.shape[2], x_BCHW.shape[3])

    def loss(self, predicted_BNF: Tensor, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the mean squared error over hidden cells, each standardised by its own mean and
        deviation."""
        target_BNF = patches(x_BCHW, self.cell)
        mean, deviation = _moments(target_BNF)
        error_BN = (predicted_BNF.float() - (target_BNF - mean) / deviation).square().mean(dim=2)
        return (error_BN * mask_BN).sum() / mask_BN.sum()


class VitMaskedModel(MaskedModel):
    """MAE on a timm ViT: the encoder sees visible tokens only, a small transformer predicts the
    rest."""

    def __init__(self, encoder: VisionTransformer, channels: int, width: int, depth: int, mask_ratio: float) -> None:
        super().__init__(int(encoder.patch_embed.patch_size[0]), mask_ratio)
        heads = max(1, width // 32)
        self.embed = nn.Linear(encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, encoder.patch_embed.num_patches, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, self.cell**2 * channels)

    def forward(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Encode visible tokens, decode all; see ``MaskedModel``."""
        visible_BVD = self._visible_tokens(encoder, x_BCHW, mask_BN)
        embedded_BVW = self.embed(visible_BVD)
        tokens_BNW = self.mask_token.to(embedded_BVW.dtype).expand(*mask_BN.shape, -1).clone()
        tokens_BNW[~mask_BN] = embedded_BVW.reshape(-1, embedded_BVW.shape[2])
        decoded_BNW = self.norm(self.blocks(tokens_BNW + self.pos_embed))
        return self.predict(decoded_BNW), _pooled(visible_BVD)

    def pool_visible(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Encode and pool the visible tokens alone; see ``MaskedModel``."""
        return _pooled(self._visible_tokens(encoder, x_BCHW, mask_BN))

    def _visible_tokens(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        assert isinstance(encoder, VisionTransformer)
        tokens_BND = encoder.patch_embed(x_BCHW)
        if encoder.pos_embed is not None:
            tokens_BND = tokens_BND + encoder.pos_embed[:, -tokens_BND.shape[1] :]
        visible_BVD = tokens_BND[~mask_BN].view(len(x_BCHW), -1, tokens_BND.shape[2])
        prefix = _prefix_tokens(encoder, len(x_BCHW))
        tokens = visible_BVD if prefix is None else torch.cat([prefix.to(visible_BVD.dtype), visible_BVD], dim=1)
        encoded: Tensor = encoder.norm(encoder.blocks(encoder.norm_pre(tokens)))
        # With average pooling timm normalises after it; the same layer serves here, so that it
        # learns too.
        return encoder.fc_norm(encoded[:, encoder.num_prefix_tokens :])  # type: ignore[no-any-return]


class ConvMaskedModel(MaskedModel):
    """SimMIM on a convolutional encoder: hidden cells show a learned colour; one convolution
    predicts pixels."""

    def __init__(self, encoder: nn.Module, channels: int, mask_ratio: float) -> None:
        super().__init__(cell_size(encoder, channels), mask_ratio)
        self.colour = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.predict = nn.Linear(int(encoder.num_features), self.cell**2 * channels)  # type: ignore[arg-type]

    def condition(self, kernels: int) -> None:
        """Also hide the cells of all bands behind one learned number; see ``MaskedModel``."""
        super().condition(kernels)
        self.colour = nn.Parameter(torch.zeros(1, 1, 1, 1))

    def forward(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the image with hidden cells coloured; see ``MaskedModel``."""
        cells_BND = self._cells(encoder, x_BCHW, mask_BN)
        return self.predict(cells_BND), self._pool(cells_BND, mask_BN)

    def pool_visible(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Encode the image and pool its visible cells alone; see ``MaskedModel``."""
        return self._pool(self._cells(encoder, x_BCHW, mask_BN), mask_BN)

    def _cells(self, encoder: nn.Module, x_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        height, width = x_BCHW.shape[2] // self.cell, x_BCHW.shape[3] // self.cell
        mask_B1GG = mask_BN.view(-1, 1, height, width)
        mask_B1HW = mask_B1GG.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)
        shown = torch.where(mask_B1HW, self.colour.to(x_BCHW.dtype), x_BCHW)
        maps: Tensor = encoder.forward_features(shown)  # type: ignore[operator]
        return maps.flatten(2).transpose(1, 2)

    def _pool(self, cells_BND: Tensor, mask_BN: Tensor) -> Tensor:
        shown_BN1 = (~mask_BN).to(cells_BND.dtype)[..., None]
        pooled = (cells_BND * shown_BN1).sum(dim=1) / shown_BN1.sum(dim=1)
        return F.layer_norm(pooled.float(), pooled.shape[-1:])


def cell_size(encoder: nn.Module, channels: int, side: int = 256) -> int:
    """Return the pixels along a cell of the encoder's last feature map, measured: timm's tables
    count empty stages.

    Raises ValueError for encoders whose features are not maps (1, D, G, G).
    """
    with torch.no_grad():
        maps: Tensor = encoder.forward_features(torch.zeros(1, channels, side, side))  # type: ignore[operator]
    if maps.ndim != 4 or maps.shape[1] != encoder.num_features or maps.shape[2] != maps.shape[3]:
        raise ValueError(f"its features have shape {tuple(maps.shape)}")
    return side // maps.shape[-1]


def patches(x_BCHW: Tensor, cell: int) -> Tensor:
    """Cut images into cells: (B, C, H, W) -> (B, N, C*P*P), all pixels of a band before the next
    band's."""
    return F.unfold(x_BCHW, kernel_size=cell, stride=cell).transpose(1, 2)


def unpatch(patches_BNF: Tensor, cell: int, channels: int, height: int, width: int) -> Tensor:
    """Put cells together again: (B, N, C*P*P) -> (B, C, H, W). Inverse of ``patches``."""
    return F.fold(patches_BNF.transpose(1, 2), (height, width), kernel_size=cell, stride=cell)


def _moments(patches_BNF: Tensor) -> tuple[Tensor, Tensor]:
    variance = patches_BNF.var(dim=2, keepdim=True)
    return patches_BNF.mean(dim=2, keepdim=True), (variance + EPSILON).sqrt()


def _pooled(tokens_BVD: Tensor) -> Tensor:
    return F.layer_norm(tokens_BVD.float().mean(dim=1), tokens_BVD.shape[-1:])


def _prefix_tokens(encoder: VisionTransformer, batch: int) -> Tensor | None:
    parts: list[Tensor] = [token for token in (encoder.cls_token, encoder.reg_token) if token is not None]
    if not parts:
        return None
    prefix = torch.cat(parts, dim=1)
    if encoder.pos_embed is not None and not encoder.no_embed_class:
        prefix = prefix + encoder.pos_embed[:, : prefix.shape[1]]
    return prefix.expand(batch, -1, -1)
