"""A server that awaits one reply, and a trial that hands it mutated frames: what it may answer, and
in which time.

Shared by the tests and by ``docs/experiments/fuzz_frames.py``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.task_identity import TaskIdentity
from mutations import PLAIN, Mutated, Original, mutate, mutations_of

from fedsense_core.codecs.codec import Codec, every_codec, get_codec
from fedsense_core.config import resolve
from fedsense_core.errors import Rejected
from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.frame import FIELDS, HEADER_BYTES, FrameHeader, FrameKind, pack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable
from server_app.admission import Admission
from server_app.round import Accepted, Expected, Round
from server_app.transport import Answer

SITE = "alpha"
NODE, NONCE = 5, b"secret of node 5"
RUN, ROUND, VERSION = 0xFED5E15E, 5, 4
MOST_NORM = 10.0
"""Largest update norm that is admitted; the valid update has 1."""
BASE_NORM = 3.0
LONGEST_REASON = 1100
SLOWEST = 10.0
"""Times the judgement of a valid frame that a mutated one may take."""
TABLE = TensorTable.from_shapes({"stem": (40, 50), "stem.bias": (40,), "empty": (0, 3), "head": (2, 1024)})
"""Coded tensors with and without filling, a small and an empty one."""
OTHER_TABLE = TensorTable.from_shapes({"stem": (40, 50), "stem.bias": (41,), "empty": (0, 3), "head": (2, 1024)})

Verdict = Accepted | Rejected | Exception


def sent_by(node: int, message: Message) -> Message:
    """Return a message as if that node had sent it."""
    message.metadata.__dict__["_src_node_id"] = node
    return message


def numbers(table: TensorTable, norm: float) -> torch.Tensor:
    """Return a fixed vector (N,) with this Euclidean norm."""
    vector = torch.from_numpy(np.random.default_rng(table.numel).standard_normal(table.numel, dtype=np.float32))
    return vector.mul_(norm / float(torch.linalg.vector_norm(vector)))


@cache
def payload_of(codec: Codec, table: TensorTable, seed: int, kind: FrameKind) -> bytes:
    """Return a true payload: an update of norm 1, or a model that lies as far from the base."""
    vector = numbers(table, 1.0)
    if kind == FrameKind.MODEL:
        vector += numbers(table, BASE_NORM)
    return codec.encode(vector, table, seed)


class Court:
    """The admission of one run, what it expects, and the frame that it accepts."""

    def __init__(
        self,
        codec: Codec,
        spool: Path,
        table: TensorTable = TABLE,
        kind: FrameKind = FrameKind.UPDATE,
        predicted: torch.Tensor | None = None,
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
        whole = kind == FrameKind.MODEL
        links = {"uplink.codec": codec.name, "uplink.bits": codec.bits if 1 <= codec.bits <= 8 else 8}
        links |= {"uplink.state_bits": getattr(codec, "state_bits", 8)}
        # Whole models travel where both ways are uncoded and no round starts at a shift.
        links |= {"downlink.codec": "none", "guidance.kind": "none"} if whole else {}
        config = resolve({"admission.first_round_max_norm": MOST_NORM, **links}, {})
        self.admission = Admission(config, spool)
        weights = numbers(table, BASE_NORM)
        replica = Replica(VERSION, weights, torch.zeros_like(weights))
        self.expected = Expected(config, Stream(RUN, 0, table, 0.9), ROUND, replica, replica.digest(), predicted)
        assert (self.expected.codec, self.expected.kind) == (codec, kind)
        frame = self.frame(self.header())
        self.original = Original(frame, table, codec, self._others() if table is TABLE else (frame[:-8],))
        self.mutations = list(mutations_of(self.original))
        self.name = f"{codec.name} {codec.bits} {kind.name.lower()}" + ("" if predicted is None else " predicted")

    def header(self) -> FrameHeader:
        """Return the header that the server expects."""
        expected, table = self.expected, self.expected.stream.table
        return FrameHeader(
            kind=expected.kind,
            run_id=RUN,
            round=ROUND,
            base_version=VERSION,
            base_digest=expected.digest,
            codec_id=expected.codec.id,
            bits=expected.codec.bits,
            elements=table.numel,
            table_digest=table.digest,
            payload_bytes=expected.codec.payload_bytes(table),
        )

    def frame(self, header: FrameHeader, codec: Codec | None = None, table: TensorTable | None = None) -> bytes:
        """Return a frame with a true payload of this or another codec and table."""
        expected, stream = self.expected, self.expected.stream
        seed = stream.update_seed(ROUND, SITE)
        payload = payload_of(codec or expected.codec, table or stream.table, seed, expected.kind)  # type: ignore[arg-type]
        return pack(replace(header, payload_bytes=len(payload)), payload).tobytes()

    def _others(self) -> tuple[bytes, ...]:
        head, codec, other = self.header(), self.expected.codec, OTHER_TABLE
        heads = [
            replace(head, round=ROUND - 1),
            replace(head, base_version=VERSION - 1, base_digest=bytes(range(16))),
            replace(head, run_id=RUN + 1),
            replace(head, kind=FrameKind.DELTA),
            replace(head, kind=FrameKind.SNAPSHOT),
        ]
        frames = [self.frame(one) for one in heads]
        frames.append(self.frame(replace(head, elements=other.numel, table_digest=other.digest), table=other))
        for one in (get_codec("none", 32), get_codec("bf16", 16), get_codec("eden", 3), get_codec("trellis", 3)):
            if one != codec:
                frames.append(self.frame(replace(head, codec_id=one.id, bits=one.bits), one))
        return tuple(frames)

    def message(self, mutated: Mutated) -> Message:
        """Return a reply that carries what arrives."""
        frame = np.frombuffer(mutated.frame, np.uint8)
        reply = TrainReply(SITE, "trained", metrics={"num-examples": 8.0}, frame=frame, nonce=NONCE)
        records = reply.to_records()
        if mutated.array is not None:
            records["update"] = ArrayRecord({"frame": Array("uint8", frame.shape, "numpy.ndarray", mutated.array)})
        return sent_by(NODE, Message(records, NODE, "train"))

    def judge(self, message: Message) -> tuple[Verdict, float]:
        """Return what the admission makes of a reply, and the seconds of computing that it took."""
        start = time.process_time()
        try:
            tensors = torch.zeros(len(self.expected.stream.table))
            round = Round(ROUND, self.expected, tensors, tensors, nonces={NODE: NONCE})
            verdict: Verdict = self.admission.admit(Answer(NODE, message), SITE, round)
        except Exception as error:
            verdict = error
        return verdict, time.process_time() - start

    def fault(self, mutated: Mutated, verdict: Verdict) -> str | None:
        """Return what is wrong with a verdict, or None."""
        if isinstance(verdict, Rejected):
            reason = verdict.reason
            sound = 0 < len(reason) <= LONGEST_REASON and reason.isprintable()
            return None if sound and (verdict.node, verdict.cause) == (SITE, "bad") else f"an odd rejection: {verdict}"
        if not isinstance(verdict, Accepted):
            return f"{type(verdict).__name__}: {verdict}"
        if mutated.array is not None:
            return "accepted an Array that is not one row of bytes"
        return self._fault_of_accepted(mutated, verdict) if mutated.sealed else "accepted a frame with an old checksum"

    def _fault_of_accepted(self, mutated: Mutated, accepted: Accepted) -> str | None:
        """Look at an accepted frame with other eyes than the server's: numpy's."""
        right = self.original.frame
        if (mutated.frame[: FIELDS.size], len(mutated.frame)) != (right[: FIELDS.size], len(right)):
            return "accepted another header or length"
        words = {name: words.of(mutated.frame[HEADER_BYTES:]) for name, words in self.original.words.items()}
        if self.original.codec.name not in PLAIN:
            tensors, blocks, values = (words[name].astype(np.float64) for name in words)
            sane = ((tensors == 0) | (tensors >= 2.0**-65) & (tensors <= 2.0**31)).all()
            if not (sane and (blocks >= 0).all() and (blocks <= 2**15).all() and (abs(values) <= 2**15).all()):
                return "accepted a scale or value that no encoder sends"
        update = accepted.update().numpy().astype(np.float64)
        norm = float(np.sqrt(np.sum(update * update)))
        if not np.isfinite(update).all() or not norm <= MOST_NORM * (1 + 1e-9):
            return f"accepted an update of norm {norm}"
        if not np.isclose(norm, accepted.norm, rtol=1e-6):
            return f"says norm {accepted.norm}, it is {norm}"
        return None if accepted.path.read_bytes() == mutated.frame else "keeps other bytes than it judged"


@dataclass
class Tally:
    """What became of the frames of a trial."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """Mutation -> outcome -> frames."""
    reasons: dict[str, set[str]] = field(default_factory=dict)
    """Mutation -> the first three words of the reasons given, those with digits left out."""
    faults: list[str] = field(default_factory=list)
    longest: str = ""
    """The longest reason."""
    slowest: tuple[float, str] = (0.0, "")
    """Most time in multiples of a valid frame's, and of which frame."""

    @property
    def frames(self) -> int:
        """Return how many frames were judged."""
        return sum(sum(counts.values()) for counts in self.outcomes.values())

    def count(self, frame: str, mutation: str, outcome: object, fault: str | None) -> None:
        """Count what became of one frame, and why it was refused."""
        self.outcomes.setdefault(mutation, Counter())[type(outcome).__name__] += 1
        if fault:
            self.faults.append(f"{frame}: {fault}")
        if isinstance(outcome, Rejected | Exception):
            reason = outcome.reason if isinstance(outcome, Rejected) else str(outcome)
            words = [word for word in reason.split() if not any(letter.isdigit() for letter in word)]
            self.reasons.setdefault(mutation, set()).add(" ".join(words[:3]))
            self.longest = max(self.longest, reason, key=len)


def courts(spool: Path, all_codecs: bool = False) -> list[Court]:
    """Return one court for each codec that updates travel in; some of them, or all."""
    few = [
        ("eden", 1),
        ("eden", 2),
        ("eden", 3),
        ("eden", 4),
        ("eden", 8),
        ("trellis", 1),
        ("trellis", 2),
        ("bf16", 16),
    ]
    chosen = [get_codec(*one) for one in [*few, ("none", 32), ("topk", 1), ("ternary", 2), ("float8", 8)]]
    if all_codecs:
        chosen = [codec for codec in every_codec() if not codec.waterfill]
    found = [Court(codec, spool / str(i)) for i, codec in enumerate(chosen)]
    found.append(Court(get_codec("none", 32), spool / "model", kind=FrameKind.MODEL))
    found.append(Court(get_codec("eden", 1), spool / "predicted", predicted=numbers(TABLE, 0.5)))
    return found


def usual_seconds(court: Court, times: int = 21) -> float:
    """Return the median time that the court takes for its valid frame."""
    message = court.message(Mutated(court.original.frame))
    found = [court.judge(message) for _ in range(times)]
    assert all(isinstance(verdict, Accepted) for verdict, _ in found), found[0]
    return float(np.median([seconds for _, seconds in found]))


def trial(
    courts: Sequence[Court], frames: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> Tally:
    """Judge ``frames`` mutated frames, courts and mutations in turn; frame i depends on ``seed``
    and i alone."""
    tally, usual = Tally(), [usual_seconds(court) for court in courts]
    for i in range(frames):
        turn, which = divmod(i, len(courts))
        court, names = courts[which], courts[which].mutations
        name = names[turn % len(names)]
        mutated = mutate(court.original, name, np.random.default_rng([seed, i]))
        message = court.message(mutated)
        verdict, seconds = court.judge(message)
        if seconds > SLOWEST * usual[which]:  # a pause of the machine is not the frame's fault, and does not come back
            seconds = min(court.judge(message)[1] for _ in range(5))
        tally.count(f"{name}, frame {i} of seed {seed}, {court.name}", name, verdict, court.fault(mutated, verdict))
        tally.slowest = max(tally.slowest, (seconds / usual[which], f"{name}, frame {i}, {court.name}"))
        progress(i + 1)
    if tally.slowest[0] > SLOWEST:
        tally.faults.append(f"{tally.slowest[0]:.1f} times a valid frame's time: {tally.slowest[1]}")
    return tally
