"""What one site may make a client read: caps that are checked before the reading."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ReadLimits(BaseModel):
    """What one site may make a client read, checked before the reading: the table ``[limits]`` of a
    site file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # Not 0: a chip without any measurement has no mean to fill its gaps with.
    min_valid: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Least fraction of a chip's pixels that must hold a measurement in every band."""
    max_file_pixels: Annotated[int, Field(ge=1)] = 1 << 37
    """Largest width times height of one file. A Sentinel-2 tile has 0.12e9; what is read is bounded
    by the others."""
    max_blocks: Annotated[int, Field(ge=1)] = 1 << 20
    """Largest number of blocks of one file: whether each is there takes some microseconds to find
    out."""
    max_expansion: Annotated[int, Field(ge=1)] = 1000
    """Largest ratio of decoded bytes to the file's size, over the blocks that are there; a crafted
    file may claim terabytes."""
    max_block_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    """Largest decoded block: a file of 250 bytes may claim one of gigabytes."""
    max_window_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    """Largest array read at once."""
    max_chips: Annotated[int, Field(ge=1)] = 200_000
    """Chips of one site; the files after that are skipped and named."""
