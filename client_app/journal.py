"""What an institution writes into its audit log of every message: what was asked, and what leaves.

A line that says what was asked is on the disk before any work, and one that says what leaves before
it leaves. Where a line cannot be written nothing leaves but the reason. A simulation keeps no log:
all its sites are on one machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context
from flwr.common.logger import log

from client_app.identity import Identity
from client_app.memory import ClientMemory
from client_app.round import without_folders
from fedsense_core.audit import FILE, AuditError, AuditLog
from fedsense_core.config import resolve
from fedsense_core.errors import FedSenseError
from fedsense_core.fingerprint import source_digest
from fedsense_core.protocol.messages import Handshake, TrainReply, TrainTask
from fedsense_core.protocol.side_channels import Attachments

Answer = TypeVar("Answer")


class Journal:
    """The audit log of one institution, and which message its lines are about."""

    def __init__(self, log: AuditLog | None, context: Context, run_id: int) -> None:
        self.log, self.context = log, context
        self.about = {"run": f"{run_id:016x}", "flower_run": context.run_id, "node": context.node_id}

    @classmethod
    def of(cls, context: Context, run_id: int) -> Journal:
        """Open the journal of a SuperNode that names a site; that of a simulated one keeps
        nothing."""
        node = context.node_config
        folder = Path(str(node.get("state-dir", Path.home() / ".fedsense" / "state"))).expanduser()
        return cls(AuditLog(folder / FILE) if "site" in node else None, context, run_id)

    def trained(self, task: TrainTask, work: Callable[[], TrainReply]) -> TrainReply:
        """Return the reply to a task, with a line before the work and one before the reply
        leaves."""
        try:
            self._write("asked", _task_in_words(task) | self._settings() | {"last": self._verdict(task)})
            reply = self._working(work)
            self._write("sent" if reply.status == "trained" else reply.status, _reply_in_words(task, reply))
            return reply
        except AuditError as error:
            return TrainReply("?", "refused", _told(error))

    def greeted(self, asked: Attachments, work: Callable[[], Handshake]) -> Handshake:
        """Return the answer to a handshake, with a line before it leaves."""
        try:
            said = self._working(work)
            self._write("greeted", self._settings() | {"asked_channels": sorted(asked)} | _handshake_in_words(said))
            return said
        except AuditError as error:
            return Handshake("", code=source_digest(), problem=_told(error))

    def _working(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except Exception as error:
            self._write("failed", {"reason": f"{type(error).__name__}: {error}"})
            raise

    def _write(self, event: str, said: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.append(event, self.about | dict(said))

    def _settings(self) -> dict[str, Any]:
        """Return what the run's settings ask of this institution, or why they are none."""
        if self.log is None:
            return {}
        try:
            config = resolve(self.context.run_config)
        except FedSenseError as error:
            return {"settings": str(error)}
        train, uplink = config.train, config.uplink
        return {
            "settings": config.digest,
            "preset": config.preset,
            "recipe": train.recipe,
            "local_steps": train.local_steps,
            "batch_size": train.batch_size,
            "codec": uplink.codec,
            "bits": uplink.bits,
            "model": config.model.architecture,
            "bands": config.data.bands if config.data.bands == "all" else list(config.data.bands),
            "statistics_asked": config.data.share_statistics,
            "sums_asked": config.train.federated_sigreg,
        }

    def _verdict(self, task: TrainTask) -> dict[str, Any]:
        """Return what the task tells of this institution's last update: it counted, or it was
        dropped."""
        if self.log is None:
            return {}
        try:
            identity = Identity.of(self.context, resolve(self.context.run_config))
        except (FedSenseError, OSError):
            return {"verdict": "unknown"}
        sent = [number for number in ClientMemory(identity.state_dir, task.run_id).rounds() if number < task.round]
        if not sent:
            return {"verdict": "none sent"}
        return {"round": sent[-1], "verdict": "counted" if sent[-1] == task.acknowledged else "dropped"}


def _task_in_words(task: TrainTask) -> dict[str, Any]:
    return {
        "round": task.round,
        "code": task.code,
        "bytes_down": task.bytes_down,
        "asked_channels": sorted(task.attachments),
    }


def _reply_in_words(task: TrainTask, reply: TrainReply) -> dict[str, Any]:
    """Return all that leaves with a reply; of what is long, its bytes and its SHA-256."""
    if reply.status != "trained":
        return {"round": task.round, "reason": reply.reason, "bytes_up": 0}
    frame = b"" if reply.frame is None else reply.frame.data
    return {
        "round": task.round,
        "bytes_up": len(frame) + sum(map(len, reply.attachments.values())),
        "frame": {"bytes": len(frame), "sha256": hashlib.sha256(frame).hexdigest()},
        "channels": _channels_in_words(reply.attachments),
        "metrics": dict(reply.metrics),
        "note": reply.note,
    }


def _handshake_in_words(said: Handshake) -> dict[str, Any]:
    channels = _channels_in_words(said.attachments)
    return {
        "site": said.site,
        "chips": said.chips,
        "skipped": said.skipped,
        "warnings": said.warnings,
        "rounds": list(said.rounds),
        "reason": said.problem,
        "bytes_up": sum(channel["bytes"] for channel in channels.values()),
        "channels": channels,
    }


def _told(error: AuditError) -> str:
    """Return in words for the coordinator why nothing leaves; the institution's own log has it
    whole."""
    log(WARNING, "%s", error)
    return without_folders(str(error))


def _channels_in_words(attachments: Attachments) -> dict[str, dict[str, Any]]:
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(attachments.items())
        if data
    }
