"""A model as one flat vector: which tensors travel, where each lies, and a digest that both sides
compare.

Shapes: N is the number of travelling elements, L the number of travelling tensors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

NORM_PIECE = 2**16
"""Elements turned into float64 at once."""
SMALL_NUMEL = 1024
"""Tensors below one Hadamard block are never worth a code: they travel in half precision."""
SMALL_NAMES = (
    "*cls_token",
    "*pos_embed",
    "*reg_token",
    "*mask_token",
    "*masked.colour",
    "*codes.polarisations",
    "*weights.mix.*",
)
"""Tokens, position tables and what turns bands into kernels: few parameters, large effect
(docs/method.md, section 5)."""


@dataclass(frozen=True)
class TensorSpec:
    """One travelling tensor: its name, its shape, and where it begins in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def end(self) -> int:
        """One past its last element in the flat vector."""
        return self.offset + self.numel

    @property
    def is_small(self) -> bool:
        """True for norm scales, biases, tokens and other tensors that travel in fp16 instead of
        codes."""
        return len(self.shape) < 2 or self.numel < SMALL_NUMEL or any(fnmatchcase(self.name, p) for p in SMALL_NAMES)


@dataclass(frozen=True)
class TensorTable:
    """The ordered list of tensors that travel. Equal tables have equal digests."""

    specs: tuple[TensorSpec, ...]

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> TensorTable:
        """Lay the named shapes out one after the other, in the order given."""
        specs: list[TensorSpec] = []
        offset = 0
        for name, shape in shapes.items():
            specs.append(TensorSpec(name, tuple(int(n) for n in shape), offset))
            offset = specs[-1].end
        return cls(tuple(specs))

    @classmethod
    def of(cls, module: nn.Module, local: Sequence[str] = ()) -> TensorTable:
        """List ``module``'s parameters except those whose names match a glob of ``local``. Buffers
        never travel."""
        shapes = {
            name: tuple(p.shape)
            for name, p in module.named_parameters()
            if not any(fnmatchcase(name, pattern) for pattern in local)
        }
        return cls.from_shapes(shapes)

    @cached_property
    def numel(self) -> int:
        """N, the length of the flat vector."""
        return self.specs[-1].end if self.specs else 0

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that name this table: names, shapes and order."""
        text = ";".join(f"{s.name}:{','.join(map(str, s.shape))}" for s in self.specs)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def __len__(self) -> int:
        return len(self.specs)

    def views(self, flat: Tensor) -> Iterator[tuple[TensorSpec, Tensor]]:
        """Yield each tensor as a view of ``flat`` (N,), one-dimensional."""
        for spec in self.specs:
            yield spec, flat[spec.offset : spec.end]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Return name -> shaped view of ``flat`` (N,)."""
        return {spec.name: view.view(spec.shape) for spec, view in self.views(flat)}

    def flatten(self, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Copy the named tensors into one new flat vector (N,) on the CPU."""
        flat = torch.empty(self.numel, dtype=dtype)
        for spec, view in self.views(flat):
            view.copy_(tensors[spec.name].detach().reshape(-1))
        return flat

    def read(self, module: nn.Module) -> Tensor:
        """Copy the travelling parameters of ``module`` into a new flat float vector (N,) on the
        CPU."""
        parameters = dict(module.named_parameters())
        return self.flatten(parameters, next(iter(parameters.values())).dtype)

    @torch.no_grad()
    def write(self, flat: Tensor, module: nn.Module) -> None:
        """Copy ``flat`` (N,) into the travelling parameters of ``module``, on whatever device they
        are."""
        parameters = dict(module.named_parameters())
        for spec, view in self.views(flat):
            parameters[spec.name].copy_(view.view(spec.shape))

    def spread(self, per_tensor: Tensor) -> Tensor:
        """Repeat one number per tensor (L,) over its elements, into a new vector (N,)."""
        spread = torch.empty(self.numel, dtype=per_tensor.dtype)
        for (_, view), value in zip(self.views(spread), per_tensor, strict=True):
            view.fill_(value)
        return spread

    def norms(self, flat: Tensor) -> Tensor:
        """Return the Euclidean norm of each tensor of ``flat`` (N,) as float64 (L,)."""
        return torch.tensor([vector_norm(view) for _, view in self.views(flat)], dtype=torch.float64)


def vector_digest(*vectors: Tensor) -> bytes:
    """Return 16 bytes that name the exact contents of flat vectors: equal on two machines only if
    every bit is."""
    state = hashlib.blake2b(digest_size=16)
    for vector in vectors:
        state.update(vector.detach().cpu().contiguous().numpy().data)
    return state.digest()


def vector_norm(vector: Tensor) -> float:
    """Return the Euclidean norm of ``vector`` (M,), summed in float64 without a float64 copy of
    it."""
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in torch.split(vector, NORM_PIECE)))
