"""Flower messages to values and back. The only module of the core that knows Flower.

Each direction carries one uint8 Array: every further Array costs a round a fifth of a second,
whatever its size.
"""

from __future__ import annotations

import hmac
import io
import secrets
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsense_core.data.sites.site_file import SITE_NAME
from fedsense_core.errors import FrameError
from fedsense_core.protocol.client_metrics import believable
from fedsense_core.protocol.side_channels import Attachments

Status = Literal["trained", "needs-snapshot", "refused"]
MAX_TEXT = 500
"""Characters of a client's words that the server keeps."""
MAX_ATTACHMENTS = 16
"""Attachments of one message, whoever sent it."""
MOST_COUNT = 10**9
"""Chips, files and warnings that a client may say it has."""
NONCE_BYTES = 16
"""Of the secret that a message carries and its reply repeats: 128 bits nobody guesses."""
REPLY = frozenset({"site", "status", "reason", "note", "nonce"})
"""Keys of the record in which a client answers a task."""
HANDSHAKE = frozenset({"site", "chips", "skipped", "warnings", "rounds", "code", "problem", "nonce", "drawn"})
"""Keys of the record in which it answers a handshake."""
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
    attachments: Attachments = field(default_factory=dict, repr=False)
    """What the side channels say to this client."""
    nonce: bytes = field(default=b"", repr=False)
    """Secret of this client and round: only who was sent the task can repeat it."""
    clients: int = 0
    """How many clients the round asks; 0 does not say."""

    @property
    def bytes_down(self) -> int:
        """Bytes that travel: frames, radii, coefficients of the prediction, and attachments."""
        numbers = int(self.frames.nbytes + self.radii.nbytes + self.gammas.nbytes)
        return numbers + sum(map(len, self.attachments.values()))

    def to_records(self, broadcast: ArrayRecord | None = None) -> RecordDict:
        """Pack into one Array and one ConfigRecord.

        ``broadcast`` is what `broadcast_record` made of the same frames, where several clients are
        sent them.
        """
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
                "nonce": self.nonce,
                "clients": self.clients,
            }
        )
        frames = broadcast or broadcast_record(self.frames)
        return RecordDict({"broadcast": frames, "task": task, **_attached(self.attachments)})

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
            attachments=_attachments(content),
            nonce=_nonce(task),
            clients=_int(task, "clients") if "clients" in task else 0,
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
    attachments: Attachments = field(default_factory=dict, repr=False)
    """What the client says in side channels; not judged yet."""
    nonce: bytes = field(default=b"", repr=False)
    """That of the task."""

    @property
    def examples(self) -> float:
        """Chips seen in the round."""
        return float(self.metrics.get("num-examples", 0.0))

    def to_records(self) -> RecordDict:
        """Pack into at most one Array, a MetricRecord and a ConfigRecord."""
        words = {"reason": self.reason or "-", "note": self.note or "-"}
        reply = ConfigRecord({"site": self.site, "status": self.status, **words, "nonce": self.nonce})
        metrics = MetricRecord({name: float(value) for name, value in self.metrics.items()})
        records = RecordDict({"reply": reply, "metrics": metrics, **_attached(self.attachments)})
        if self.frame is not None:
            records["update"] = ArrayRecord({"frame": Array(self.frame)})
        return records

    @classmethod
    def from_message(cls, message: Message) -> TrainReply:
        """Read a reply whoever sent it. Raises FrameError for anything that is not one."""
        _check_records(message, {"reply": REPLY, "metrics": None, "update": {"frame"}, "attachments": None})
        try:
            reply = message.content.config_records["reply"]
            metrics = dict(message.content.metric_records["metrics"])
            site, status, reason = (_text(reply, key) for key in ("site", "status", "reason"))
            note = printable(_text(reply, "note"))[:MAX_NOTE] if "note" in reply else "-"
            attachments, nonce = _attachments(message.content), _nonce(reply)
        except KeyError as error:
            raise FrameError(f"the reply has no {error}") from None
        if status != "trained":
            refused: Status = "needs-snapshot" if status == "needs-snapshot" else "refused"
            return cls(site, refused, printable(reason), nonce=nonce)
        frame = _array(message.content, "update", "frame")
        note = "" if note == "-" else note
        return cls(site, "trained", printable(reason), believable(metrics), frame, note, attachments, nonce)


@dataclass(frozen=True)
class Handshake:
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
    drawn: str = ""
    """Digest of the first replica as it draws it from the run's seed, hex; empty if it does not."""
    warnings: int = 0
    """How much it finds odd about its imagery; the words stay in its own log."""
    attachments: Attachments = field(default_factory=dict, repr=False)
    """What the client says in side channels, where its site allows it; not judged yet."""
    nonce: bytes = field(default=b"", repr=False)
    """That of the request."""

    def to_records(self) -> RecordDict:
        """Pack into one ConfigRecord."""
        handshake = ConfigRecord(
            {
                "site": self.site or "-",
                "chips": self.chips,
                "skipped": self.skipped,
                "warnings": self.warnings,
                "rounds": ",".join(map(str, self.rounds)) or "-",
                "code": self.code,
                "problem": self.problem or "-",
                "nonce": self.nonce,
                "drawn": self.drawn or "-",
            }
        )
        return RecordDict({"handshake": handshake, **_attached(self.attachments)})

    @classmethod
    def from_message(cls, message: Message) -> Handshake:
        """Read a handshake whoever sent it. Raises FrameError for anything that is not one."""
        _check_records(message, {"handshake": HANDSHAKE, "attachments": None})
        try:
            answer = message.content.config_records["handshake"]
            rounds, problem = str(answer["rounds"]), printable(str(answer["problem"]))
            drawn = printable(_text(answer, "drawn"))
            site = "" if answer["site"] == "-" else str(answer["site"])
            if site and not SITE_NAME.fullmatch(site):
                raise ValueError(f"{printable(site)!r} is no name of a site")
            return cls(
                site=site,
                chips=_count(answer, "chips"),
                skipped=_count(answer, "skipped"),
                warnings=_count(answer, "warnings") if "warnings" in answer else 0,
                rounds=() if rounds == "-" else tuple(int(part) for part in rounds.split(",")[:64]),
                code=printable(str(answer["code"])),
                problem="" if problem == "-" else problem,
                drawn="" if drawn == "-" else drawn,
                attachments=_attachments(message.content),
                nonce=_nonce(answer),
            )
        except (KeyError, ValueError) as error:
            raise FrameError(f"not a handshake: {error}") from None


def broadcast_record(frames: np.ndarray) -> ArrayRecord:
    """Return the record that carries frames to clients; one may stand in the messages to many."""
    return ArrayRecord({"frames": Array(frames)})


def handshake_request(
    run_id: int, earlier_run_id: int = 0, attachments: Attachments | None = None, nonce: bytes = b""
) -> RecordDict:
    """Ask a client what it has, of a run and of the one that this goes on from (0 none);
    ``attachments`` are what side channels say to it, ``nonce`` is what its answer must repeat."""
    request = ConfigRecord({"run-id": run_id, "earlier-run-id": earlier_run_id, "nonce": nonce})
    return RecordDict({"request": request, **_attached(attachments or {})})


def handshake_run_ids(message: Message) -> tuple[int, int]:
    """Return the run that a handshake is about, and the one that this goes on from (0 none)."""
    request = message.content.config_records["request"]
    return _int(request, "run-id"), _int(request, "earlier-run-id")


def handshake_nonce(message: Message) -> bytes:
    """Return what the answer to a handshake must repeat."""
    return _nonce(message.content.config_records["request"])


def new_nonce() -> bytes:
    """Draw the secret of one message. It is no part of the model, so no seed names it."""
    return secrets.token_bytes(NONCE_BYTES)


def check_sender(message: Message, node: int, nonce: bytes, expected: bytes) -> None:
    """Raise FrameError where a reply is not of the node that was asked.

    Flower hands over whatever a connected node uploads under another's message id, so what shows
    who answers is ``nonce``, which only the node that was asked has been told.
    """
    if message.metadata.src_node_id != node:
        raise FrameError(f"the reply to node {node} names node {message.metadata.src_node_id} as its sender")
    if not expected or not hmac.compare_digest(nonce, expected):
        raise FrameError("the reply does not repeat the secret of its task: somebody else sent it")


def handshake_attachments(message: Message) -> dict[str, bytes]:
    """Return what side channels say with a handshake's question."""
    return _attachments(message.content)


def bytes_up(message: Message) -> int:
    """Return the bytes of all Arrays and attachments of a reply, whoever sent it."""
    if message.has_error():
        return 0
    records = message.content
    arrays = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    attached = records.config_records.get("attachments", {}).values()
    return arrays + sum(len(value) for value in attached if isinstance(value, bytes))


def _attached(attachments: Attachments) -> dict[str, ConfigRecord]:
    """Return the record that carries attachments; none where there are none."""
    filled = {name: attachment for name, attachment in attachments.items() if attachment}
    return {"attachments": ConfigRecord({**filled})} if filled else {}


def _attachments(content: RecordDict) -> dict[str, bytes]:
    """Return the attachments of a message, whoever sent it. Raises FrameError unless all are
    bytes."""
    record = content.config_records.get("attachments")
    if record is None:
        return {}
    if len(record) > MAX_ATTACHMENTS:
        raise FrameError(f"it has {len(record)} attachments, at most {MAX_ATTACHMENTS} are read")
    return {printable(name): _bytes(record, name) for name in record}


def _check_records(message: Message, known: Mapping[str, Set[str] | None]) -> None:
    """Raise FrameError for an error in place of an answer, and for a record or a key that nobody
    asked for; ``known`` has the keys by record, None where they are judged elsewhere."""
    if message.has_error():
        raise FrameError(f"error {message.error.code}: {printable(message.error.reason or 'no reason given')}")
    for name, record in message.content.items():
        if name not in known:
            raise FrameError(f"it has a record {printable(name)[:60]!r}, which nobody asked for")
        keys = known[name]
        if keys is not None and (unknown := sorted(record.keys() - keys)):
            raise FrameError(f"its record {name!r} has {printable(unknown[0])[:60]!r}, which nobody asked for")


def _nonce(record: ConfigRecord) -> bytes:
    """Return the nonce of a record, whoever sent it; empty where there is none."""
    return _bytes(record, "nonce") if "nonce" in record else b""


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


def _count(record: ConfigRecord, key: str) -> int:
    value = _int(record, key)
    if not 0 <= value <= MOST_COUNT:
        raise FrameError(f"{key} is {value}, not between 0 and {MOST_COUNT}")
    return value


def _bytes(record: ConfigRecord, key: str) -> bytes:
    value = record[key]
    if not isinstance(value, bytes):
        raise FrameError(f"{key} is not bytes")
    return value
