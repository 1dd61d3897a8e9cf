"""Flower messages to values and back. The only module of the core that knows Flower.

Each direction carries one uint8 Array: every further Array costs a round a fifth of a second,
whatever its size.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.data.sites.site_file import SITE_NAME
from fedsense_core.errors import FrameError

Status = Literal["trained", "needs-snapshot", "refused"]
MAX_TEXT = 500
"""Characters of a client's words that the server keeps."""
MAX_NOTE = 200
"""Characters of a client's note, which stands in the record of every round that has one."""


@dataclass(frozen=True)
class TrainTask:
    """What the server asks of one client in one round."""

    run_id: int
    round: int
    version: int
    """Version of the replica on which the update must build."""
    acknowledged: int
    """Last round whose update of this client was aggregated; 0 none."""
    code: str
    """Digest of the server's source."""
    config_digest: str
    """Digest of the server's configuration."""
    radii: np.ndarray = field(repr=False)
    """ρ_l, float32 (L,)."""
    gammas: np.ndarray = field(repr=False)
    """γ_l, float32 (L,)."""
    frames: np.ndarray = field(repr=False)
    """Bundle of frames that leads from what the client holds to ``version``, uint8."""
    offset: bytes = field(default=b"", repr=False)
    """How far all clients' embeddings were from this one's (``train.federated_sigreg``); empty
    where unknown."""

    @property
    def bytes_down(self) -> int:
        """Bytes that travel: frames, radii, coefficients of the predictor, and the offset."""
        return int(self.frames.nbytes + self.radii.nbytes + self.gammas.nbytes) + len(self.offset)

    def to_records(self) -> RecordDict:
        """Pack into one Array and one ConfigRecord."""
        task = ConfigRecord(
            {
                "run-id": self.run_id,
                "round": self.round,
                "version": self.version,
                "acknowledged": self.acknowledged,
                "code": self.code,
                "config-digest": self.config_digest,
                "radii": self.radii.astype("<f4").tobytes(),
                "gammas": self.gammas.astype("<f4").tobytes(),
                "offset": self.offset,
            }
        )
        return RecordDict({"broadcast": ArrayRecord({"frames": Array(self.frames)}), "task": task})

    @classmethod
    def from_records(cls, content: RecordDict) -> TrainTask:
        """Read what ``to_records`` packed."""
        task = content.config_records["task"]
        return cls(
            run_id=_int(task, "run-id"),
            round=_int(task, "round"),
            version=_int(task, "version"),
            acknowledged=_int(task, "acknowledged"),
            code=str(task["code"]),
            config_digest=str(task["config-digest"]),
            radii=np.frombuffer(_bytes(task, "radii"), "<f4").copy(),
            gammas=np.frombuffer(_bytes(task, "gammas"), "<f4").copy(),
            frames=_array(content, "broadcast", "frames"),
            offset=_bytes(task, "offset"),
        )


@dataclass(frozen=True)
class TrainReply:
    """What a client answers."""

    site: str
    status: Status
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """``num-examples`` and the means of the round's losses."""
    frame: np.ndarray | None = field(default=None, repr=False)
    note: str = ""
    """What the coordinator should know of a round that went well otherwise; empty if nothing."""
    sums: bytes = field(default=b"", repr=False)
    """Sums of the client's embeddings (``train.federated_sigreg``), as ``SigregStatistics`` writes
    them."""

    @property
    def examples(self) -> float:
        """Chips seen in the round."""
        return float(self.metrics.get("num-examples", 0.0))

    def to_records(self) -> RecordDict:
        """Pack into at most one Array, a MetricRecord and a ConfigRecord."""
        words = {"reason": self.reason or "-", "note": self.note or "-"}
        reply = ConfigRecord({"site": self.site, "status": self.status, **words, "sums": self.sums})
        records = RecordDict({"reply": reply, "metrics": MetricRecord({k: float(v) for k, v in self.metrics.items()})})
        if self.frame is not None:
            records["update"] = ArrayRecord({"frame": Array(self.frame)})
        return records

    @classmethod
    def from_message(cls, message: Message) -> TrainReply:
        """Read a reply whoever sent it. Raises FrameError for anything that is not one."""
        if message.has_error():
            raise FrameError(f"error {message.error.code}: {printable(message.error.reason or 'no reason given')}")
        try:
            reply = message.content.config_records["reply"]
            metrics = dict(message.content.metric_records["metrics"])
            site, status, reason = (_text(reply, key) for key in ("site", "status", "reason"))
            note = printable(_text(reply, "note"))[:MAX_NOTE] if "note" in reply else "-"
            sums = _bytes(reply, "sums") if "sums" in reply else b""
        except KeyError as error:
            raise FrameError(f"the reply has no {error}") from None
        if status != "trained":
            return cls(site, "needs-snapshot" if status == "needs-snapshot" else "refused", printable(reason))
        frame = _array(message.content, "update", "frame")
        return cls(site, "trained", printable(reason), _finite(metrics), frame, "" if note == "-" else note, sums)


@dataclass(frozen=True)
class Hello:
    """What a client says of itself before it is given work."""

    site: str
    """Name from its site file; empty if it has none."""
    chips: int = 0
    skipped: int = 0
    """Files it could not use."""
    rounds: tuple[int, ...] = ()
    """Rounds of this run whose state it holds on disk."""
    code: str = ""
    problem: str = ""
    """Why it cannot train; empty if it can."""
    statistics: SensorStatistics = field(default_factory=SensorStatistics, repr=False)
    """Of its imagery, where the run and the site file both allow it."""

    def to_records(self) -> RecordDict:
        """Pack into one ConfigRecord."""
        hello = ConfigRecord(
            {
                "site": self.site or "-",
                "chips": self.chips,
                "skipped": self.skipped,
                "rounds": ",".join(map(str, self.rounds)) or "-",
                "code": self.code,
                "problem": self.problem or "-",
                "statistics": self.statistics.to_bytes(),
            }
        )
        return RecordDict({"hello": hello})

    @classmethod
    def from_message(cls, message: Message) -> Hello:
        """Read a hello whoever sent it. Raises FrameError for anything that is not one."""
        if message.has_error():
            raise FrameError(f"error {message.error.code}: {printable(message.error.reason or 'no reason given')}")
        try:
            hello = message.content.config_records["hello"]
            rounds, problem = str(hello["rounds"]), printable(str(hello["problem"]))
            site = "" if hello["site"] == "-" else str(hello["site"])
            if site and not SITE_NAME.fullmatch(site):
                raise ValueError(f"{printable(site)!r} is no name of a site")
            return cls(
                site=site,
                chips=_int(hello, "chips"),
                skipped=_int(hello, "skipped"),
                rounds=() if rounds == "-" else tuple(int(part) for part in rounds.split(",")[:64]),
                code=printable(str(hello["code"])),
                problem="" if problem == "-" else problem,
                # Releases without them are told of their other code, not of the key that they lack.
                statistics=SensorStatistics.from_bytes(_bytes(hello, "statistics") if "statistics" in hello else b""),
            )
        except (KeyError, ValueError) as error:
            raise FrameError(f"not a hello: {error}") from None


def hello_request(run_id: int) -> RecordDict:
    """Ask a client what it has."""
    return RecordDict({"request": ConfigRecord({"run-id": run_id})})


def hello_run_id(message: Message) -> int:
    """Return the run that a hello request is about."""
    return _int(message.content.config_records["request"], "run-id")


def bytes_up(message: Message) -> int:
    """Return the bytes of all Arrays and of the sums of a reply, whoever sent it and whatever is in
    them."""
    if message.has_error():
        return 0
    records = message.content
    sums = records.config_records["reply"].get("sums", b"") if "reply" in records.config_records else b""
    arrays = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    return arrays + (len(sums) if isinstance(sums, bytes) else 0)


def _array(content: RecordDict, record: str, key: str) -> np.ndarray:
    """Return the bytes of an Array as a view; ``Array.numpy`` would parse, and allocate what a
    sender claims."""
    try:
        array = content.array_records[record][key]
    except KeyError as error:
        raise FrameError(f"no frame in the message: {error}") from None
    length = len(array.data) - len(_npy_header(0))
    if length < 0 or not array.data.startswith(_npy_header(length)):
        raise FrameError("a frame is one row of bytes; this Array is something else")
    return np.frombuffer(array.data, np.uint8, offset=len(_npy_header(0)))


@cache
def _npy_header(length: int) -> bytes:
    """Return what ``numpy.save`` writes before ``length`` bytes: 128 bytes for any length."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _finite(metrics: Mapping[str, object]) -> dict[str, float]:
    clean: dict[str, float] = {}
    for key, value in list(metrics.items())[:64]:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise FrameError(f"metric {printable(key)[:60]!r} is {printable(str(value))[:60]!r}, not a finite number")
        clean[key] = float(value)
    return clean


def printable(text: str) -> str:
    """Return one printable line of at most MAX_TEXT characters of a stranger's words."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT])


def _text(record: ConfigRecord, key: str) -> str:
    value = record[key]
    if not isinstance(value, str):  # str() of a long list would be built before it is cut
        raise FrameError(f"{key} is no text")
    return value


def _int(record: ConfigRecord, key: str) -> int:
    value = record[key]
    if not isinstance(value, int):
        raise FrameError(f"{key} is {printable(str(value))!r}, not an integer")
    return value


def _bytes(record: ConfigRecord, key: str) -> bytes:
    value = record[key]
    if not isinstance(value, bytes):
        raise FrameError(f"{key} is not bytes")
    return value
