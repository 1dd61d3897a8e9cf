"""What judging a large frame costs: how far resident memory rises above where it stood, and how
long it takes.

Shared by the tests and by ``docs/experiments/fuzz_frames.py``. Linux alone can set a process's
high-water mark back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from judging import SLOWEST, Court, usual_seconds
from mutations import Mutated, mutate

from fedsense_core.codecs.codec import get_codec
from fedsense_core.protocol.frame import FrameKind
from fedsense_core.tensors import TensorTable
from server_app.round import Accepted

MOST_FRAMES = 2.0
"""Times its own size by which judging a frame may raise resident memory."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """What a trial with large frames found."""

    frame: int
    """Bytes of a frame."""
    valid_growth: int
    """Bytes by which resident memory rises while a valid frame is judged for the first time."""
    valid_s: float
    """Median seconds of judging a valid frame."""
    growth: dict[str, int] = field(default_factory=dict)
    """Mutation -> most bytes by which resident memory rises while one mutated frame is judged."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Mutation -> most seconds of judging one mutated frame."""
    faults: list[str] = field(default_factory=list)
    """Verdicts that should not be."""

    def excesses(self) -> list[str]:
        """Return what took more memory or time than is promised."""
        memory, name = max((growth / self.frame, name) for name, growth in self.growth.items())
        times, slow = max((seconds / self.valid_s, name) for name, seconds in self.seconds.items())
        found = [f"resident memory rises by {memory:.1f} times the frame: {name}"] if memory >= MOST_FRAMES else []
        return found + ([f"{times:.1f} times a valid frame's time: {slow}"] if times > SLOWEST else [])


def resident(mark: str) -> int:
    """Return bytes: ``VmRSS`` now, or ``VmHWM``, the most since the mark was set back."""
    found = re.search(rf"^{mark}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


def measured(court: Court, mutated: Mutated) -> tuple[int, float, str | None]:
    """Judge one frame; return the rise of resident memory, the seconds, and what was wrong."""
    message = court.message(mutated)
    RESET.write_text("5")
    before = resident("VmRSS")
    verdict, seconds = court.judge(message)
    growth = resident("VmHWM") - before
    same = mutated.frame == court.original.frame and mutated.array is None
    fault = None if same and isinstance(verdict, Accepted) else court.fault(mutated, verdict)
    return growth, seconds, fault


def large_trial(codec: str, bits: int, kind: FrameKind, blocks: int, frames: int, spool: Path, seed: int = 0) -> Cost:
    """Judge a valid frame of 1024 ``blocks`` numbers, and then ``frames`` mutated ones, each
    mutation in turn."""
    table = TensorTable.from_shapes({"weight": (blocks, 1024), "bias": (1024,)})
    for small in (Court(get_codec(codec, bits), spool, kind=kind), Court(get_codec("none", 32), spool)):
        usual_seconds(small)  # what the first use of any code loads is not the frame's
    court = Court(get_codec(codec, bits), spool, table, kind)
    valid = Mutated(court.original.frame)
    growth, _, fault = measured(court, valid)
    cost = Cost(len(valid.frame), growth, usual_seconds(court, 5), faults=[fault] if fault else [])
    for i in range(frames):
        name = court.mutations[i % len(court.mutations)]
        mutated = mutate(court.original, name, np.random.default_rng([seed, 2, i]))
        growth, seconds, fault = measured(court, mutated)
        cost.growth[name] = max(cost.growth.get(name, 0), growth)
        cost.seconds[name] = max(cost.seconds.get(name, 0.0), seconds)
        cost.faults += [f"{name}, large frame {i} of seed {seed}: {fault}"] if fault else []
    return cost
