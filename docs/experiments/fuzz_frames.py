"""Hand mutated frames to the server's admission, and mutated broadcasts to a client, and print what
became of them.

Frames of every codec are damaged, cut, joined, and forged with checksums that fit: lying lengths,
other headers, scales and values at and beyond every limit. Each must be ``Rejected``, or, where
nothing but codes and sound numbers differ, be an update that is finite and within the norm limit. A
client may refuse, ask for a snapshot, or hold a replica. Then large frames are judged one by one:
memory may not rise by twice the frame, time may not exceed ten valid frames'.

    OMP_NUM_THREADS=1 python docs/experiments/fuzz_frames.py --frames 1000000

Prints Markdown tables. Exits with 1 if anything else happened. Frame i depends on the seed and i
alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import judging
import large_frames
import receiving
from judging import Tally

from fedsense_core.protocol.frame import FrameKind

BUNDLES = 10
"""One broadcast for a client for so many frames for the server: it takes what it gets from its
coordinator alone."""
MOST_GROWTH = 32 * 2**20
"""Bytes by which resident memory may rise in a whole trial of small frames: none is kept."""
LARGE = (("eden", 1, FrameKind.UPDATE), ("none", 32, FrameKind.UPDATE), ("none", 32, FrameKind.MODEL))
LARGE_FRAMES = 60


@dataclass
class Progress:
    """A line on standard error, now and then."""

    total: int
    what: str
    every_s: float = field(default_factory=lambda: 1.0 if sys.stderr.isatty() else 60.0)
    start: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if done < self.total and now - self.shown < self.every_s:
            return
        self.shown = now
        rate = done / max(now - self.start, 1e-9)
        left = f"{(self.total - done) / rate / 60:.1f} min left"
        text = f"{done:,} of {self.total:,} {self.what}, {rate:,.0f} a second, {left}"
        last = done == self.total or not sys.stderr.isatty()
        print(f"\r{text:<78}", end="\n" if last else "", file=sys.stderr, flush=True)


def small(frames: int, seed: int) -> tuple[Tally, Tally, int]:
    """Return what became of frames and of broadcasts, and the bytes by which resident memory
    rose."""
    with tempfile.TemporaryDirectory() as spool:
        courts = judging.courts(Path(spool), all_codecs=True)
        judging.trial(courts, 20 * len(courts), seed + 1)  # what any first use loads is not the frames'
        large_frames.RESET.write_text("5")
        before = large_frames.resident("VmRSS")
        tally = judging.trial(courts, frames, seed, Progress(frames, "frames"))
        bundles = max(1, frames // BUNDLES)
        received = receiving.trial(bundles, seed, Progress(bundles, "broadcasts"))
        return tally, received, large_frames.resident("VmHWM") - before


def outcomes(tally: Tally) -> Iterator[str]:
    """Yield a table of mutations and what became of them."""
    columns = sorted({outcome for counts in tally.outcomes.values() for outcome in counts})
    yield f"| mutation | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for name, counts in tally.outcomes.items():
        yield f"| {name} | {' | '.join(f'{counts[column]:,}' for column in columns)} |"


def figures(judged: Tally, received: Tally, growth: int) -> Iterator[str]:
    """Yield what else is promised of small frames."""
    times, which = judged.slowest
    longest = max(judged.longest, received.longest, key=len)
    yield f"- {judged.frames:,} frames judged, {received.frames:,} broadcasts received"
    yield f"- slowest judgement: {times:.1f} times a valid frame's ({which})"
    yield f"- resident memory rose by {growth / 2**20:.1f} MiB in all"
    yield f"- longest reason, {len(longest)} characters: {longest}"


def large(blocks: int, seed: int, faults: list[str]) -> Iterator[str]:
    """Yield a table of what judging large frames costs."""
    yield "| large frame | MiB | most memory, in frames | most time, in valid frames | valid frame, s |"
    yield "|---|---:|---:|---:|---:|"
    for codec, bits, kind in LARGE:
        with tempfile.TemporaryDirectory() as spool:
            cost = large_frames.large_trial(codec, bits, kind, blocks, LARGE_FRAMES, Path(spool), seed)
        name = f"{codec} {bits}, {kind.name.lower()}"
        faults += cost.faults + [f"{name}: {fault}" for fault in cost.excesses()]
        memory, seconds = max(cost.growth.values()) / cost.frame, max(cost.seconds.values()) / cost.valid_s
        yield f"| {name} | {cost.frame / 2**20:.1f} | {memory:.2f} | {seconds:.1f} | {cost.valid_s:.3f} |"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="mutated frames (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="which frames (default: 0)")
    parser.add_argument(
        "--blocks", type=int, default=8192, help="1024 numbers of a large frame; 0: none (default: 8192)"
    )
    return parser.parse_args()


def main() -> int:
    """Judge everything, print tables, and return 1 if anything happened that must not."""
    options = arguments()
    judged, received, growth = small(options.frames, options.seed)
    faults = judged.faults + received.faults
    if growth > MOST_GROWTH:
        faults.append(f"resident memory rose by {growth / 2**20:.0f} MiB while small frames were judged")
    print("\n".join([*outcomes(judged), "", *outcomes(received), "", *figures(judged, received, growth), ""]))
    if options.blocks:
        print("\n".join([*large(options.blocks, options.seed, faults), ""]))
    print("\n".join(f"VIOLATION: {fault}" for fault in faults) or "No violation.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
