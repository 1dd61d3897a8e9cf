"""Frames of the round under way, on disk: encoded until they are needed, and for a server that is
interrupted.

Beside each frame lies what else the reply said, with a checksum of both and the round that it
belongs to: run, number, replica and settings. A server that is started again reads back what was
accepted, judges it as when it came, and asks only who is missing. The secret of its task was
checked when a reply was accepted; it is not written down.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from logging import WARNING
from pathlib import Path

import numpy as np
from flwr.common.logger import log
from pydantic import BaseModel, ConfigDict, ValidationError

from fedsense_core.protocol.messages import TrainReply
from fedsense_core.run_folder.paths import safe_name
from server_app.round import Expected

FRAME, MANIFEST = ".frame", ".json"


class SpooledReply(BaseModel):
    """What a manifest says of the frame beside it; strict, because disks fail."""

    model_config = ConfigDict(extra="forbid")

    run_id: int
    round: int
    base_digest: str
    """Of the replica on which the update builds, hex."""
    config_digest: str
    site: str
    metrics: dict[str, float]
    note: str
    attachments: dict[str, str]
    """Base 64."""
    bytes_up: int
    factor: float
    """What multiplied its examples: it follows from a handshake that the site may not repeat."""
    sha256: str
    """Of the frame, then of all the above."""

    def sealed(self, frame: bytes | memoryview) -> SpooledReply:
        """Return it with the checksum that it must have beside ``frame``."""
        digest = hashlib.sha256(frame)
        digest.update(json.dumps(self.model_dump(exclude={"sha256"}), sort_keys=True).encode())
        return self.model_copy(update={"sha256": digest.hexdigest()})

    def belongs_to(self, expected: Expected) -> bool:
        """Return whether it answers a task of this round."""
        mine = (self.run_id, self.round, self.base_digest, self.config_digest)
        return mine == _names(expected)

    def reply(self, frame: bytes) -> TrainReply:
        """Return the reply that was accepted."""
        attached = {name: base64.b64decode(text) for name, text in self.attachments.items()}
        return TrainReply(
            *(self.site, "trained"),
            metrics=self.metrics,
            frame=np.frombuffer(frame, np.uint8),
            note=self.note,
            attachments=attached,
        )


@dataclass(frozen=True)
class Kept:
    """One reply as it is read back."""

    reply: TrainReply
    path: Path
    """Of its frame."""
    bytes_up: int
    factor: float


@dataclass(frozen=True)
class Spool:
    """The folder in which the frames of one round wait."""

    folder: Path

    def keep(self, reply: TrainReply, expected: Expected, bytes_up: int, factor: float) -> Path:
        """Write a reply that counts, and return where its frame is."""
        assert reply.frame is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        path, frame = self._path(reply.site), reply.frame.data
        run_id, number, base, config = _names(expected)
        about = SpooledReply(
            run_id=run_id,
            round=number,
            base_digest=base,
            config_digest=config,
            site=reply.site,
            metrics=dict(reply.metrics),
            note=reply.note,
            attachments={name: base64.b64encode(data).decode() for name, data in reply.attachments.items()},
            bytes_up=bytes_up,
            factor=factor,
            sha256="",
        )
        path.write_bytes(frame)  # `tofile` loses the end on a full disk, without an error
        # Last, and not synced: what a power cut tears has a wrong checksum and is asked for again.
        path.with_suffix(MANIFEST).write_text(about.sealed(frame).model_dump_json(), encoding="utf-8")
        return path

    def kept(self, expected: Expected) -> Iterator[Kept]:
        """Yield what was accepted in this round before the server was interrupted, in the order of
        names; whatever else lies there is removed."""
        for path in sorted(self.folder.glob(f"*{FRAME}")):
            found = _read(path, expected)
            if found:
                yield found
            else:
                self.drop(path)

    def drop(self, path: Path) -> None:
        """Remove one frame and what was said with it."""
        for file in (path.with_suffix(MANIFEST), path):
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything: the round is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, site: str) -> Path:
        """Return where the frame of a site is; two sites may have the same harmless name."""
        digest = hashlib.blake2b(site.encode(), digest_size=4).hexdigest()
        return self.folder / f"{safe_name(site)}-{digest}{FRAME}"


def _names(expected: Expected) -> tuple[int, int, str, str]:
    return expected.stream.run_id, expected.round, expected.digest.hex(), expected.config.digest


def _read(path: Path, expected: Expected) -> Kept | None:
    """Return what a frame and its manifest hold, None where they are damaged or of another
    round."""
    try:
        frame = path.read_bytes()
        about = SpooledReply.model_validate_json(path.with_suffix(MANIFEST).read_bytes())
        if not about.belongs_to(expected):
            return None
        if about.sealed(frame) != about:
            raise ValueError("its checksum is wrong")
        return Kept(about.reply(frame), path, about.bytes_up, about.factor)
    except (OSError, ValueError, ValidationError) as error:
        log(WARNING, "the kept reply %s is damaged (%s): its client is asked again", path.name, error)
        return None
