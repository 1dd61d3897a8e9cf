"""Accepted replies made of vectors, their frames on disk as admission leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedsense_core.config import Config
from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.frame import FrameHeader, pack
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable, vector_norm
from server_app.round import Accepted, Expected


def spooled(
    folder: Path, updates: Sequence[Tensor], config: Config, base: float = 1.0, table: TensorTable | None = None
) -> list[Accepted]:
    """Return one reply for each update (N,), of sites that are named in their order; models lie
    around ``base``."""
    table = table or TensorTable.from_shapes({"all": (len(updates[0]),)})
    replica = Replica(1, torch.full((table.numel,), base), torch.zeros(table.numel))
    expected = Expected(config, Stream(1, 0, table, None), 1, replica, replica.digest())
    return [_reply(folder, f"site-{i:03d}", update, expected) for i, update in enumerate(updates)]


def _reply(folder: Path, site: str, update: Tensor, expected: Expected) -> Accepted:
    codec, table = expected.codec, expected.stream.table
    value = expected.replica.weights + update if expected.config.sends_models else update
    payload = codec.encode(value, table, expected.stream.update_seed(expected.round, site))
    header = FrameHeader(
        kind=expected.kind,
        run_id=expected.stream.run_id,
        round=expected.round,
        base_version=expected.replica.version,
        base_digest=expected.digest,
        codec_id=codec.id,
        bits=codec.bits,
        elements=table.numel,
        table_digest=table.digest,
        payload_bytes=len(payload),
    )
    path = folder / f"{site}.frame"
    pack(header, payload).tofile(path)
    accepted = Accepted(site, 8.0, 0.0, {}, "", expected, path)
    object.__setattr__(accepted, "norm", vector_norm(accepted.update()))
    return accepted
