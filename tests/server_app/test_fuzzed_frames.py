"""Nothing in a frame is trusted: whatever arrives is rejected, or is an update that an honest
client can have sent.

Ten thousand mutated frames; ``docs/experiments/fuzz_frames.py`` does a million.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from judging import LONGEST_REASON, Court, courts, trial, usual_seconds
from large_frames import RESET
from mutations import MUTATIONS, Mutated, mutate, other_arrays

from fedsense_core.codecs.codec import get_codec
from fedsense_core.errors import FrameError, Rejected
from fedsense_core.protocol.frame import FrameKind, unpack
from server_app.round import Accepted

ROOT = Path(__file__).parents[2]
FRAMES = 10_000
BOMBS = {"tensor scale bomb", "block scale bomb", "value bomb"}
MAY_BE_RIGHT = BOMBS | {"codes flipped", "codes random", "payload of another frame"}
"""What can be an honest update of other numbers. Nothing else can."""
SEALED = MAY_BE_RIGHT | {"header field", "lying length", "payload random", "another frame"}
LARGE = """
import dataclasses, json, sys
from pathlib import Path
from fedsense_core.protocol.frame import FrameKind
from large_frames import large_trial
codec, bits, kind, blocks, spool = sys.argv[1:]
cost = large_trial(codec, int(bits), FrameKind[kind], int(blocks), 60, Path(spool))
print(json.dumps(dataclasses.asdict(cost) | {"excesses": cost.excesses()}))
"""


def test_ten_thousand_mutated_frames_are_rejected_or_are_sound_updates(tmp_path: Path) -> None:
    tally = trial(courts(tmp_path), FRAMES, seed=0)
    assert tally.faults == []
    assert tally.frames == FRAMES
    assert set(tally.outcomes) == set(MUTATIONS)
    assert min(sum(counts.values()) for counts in tally.outcomes.values()) > 200
    accepted = {name for name, counts in tally.outcomes.items() if counts["Accepted"]}
    assert accepted <= MAY_BE_RIGHT
    assert {"codes flipped", "codes random"} <= accepted  # a server that rejects everything would pass the rest
    assert len(tally.longest) <= LONGEST_REASON
    assert [name for name in SEALED if any("checksum" in reason for reason in tally.reasons[name])] == []


def test_equal_seeds_mutate_equally_and_nothing_stays_as_it_was(tmp_path: Path) -> None:
    original = Court(get_codec("eden", 1), tmp_path).original
    for name in MUTATIONS:
        one, same, other = (mutate(original, name, np.random.default_rng([seed])) for seed in (1, 1, 2))
        assert one == same
        assert one.frame != original.frame or one.array is not None
        assert name == "empty" or other != one


def test_the_frame_that_is_mutated_is_accepted_itself(tmp_path: Path) -> None:
    for court in courts(tmp_path, all_codecs=True):
        assert usual_seconds(court, 1) >= 0  # says that it was accepted


def test_a_verdict_that_should_not_be_is_found(tmp_path: Path) -> None:
    court = Court(get_codec("eden", 1), tmp_path)
    right = Mutated(court.original.frame)
    accepted, _ = court.judge(court.message(right))
    assert isinstance(accepted, Accepted)
    rng = np.random.default_rng(0)
    for name in MUTATIONS:
        assert court.fault(mutate(court.original, name, rng), accepted), name
    for odd in (MemoryError("no"), Rejected("alpha", ""), Rejected("alpha", "a\nb"), Rejected("alpha", "y" * 1101)):
        assert court.fault(right, odd)
    assert court.fault(right, Rejected("alpha", "why")) is None


def test_arrays_of_another_dtype_or_shape_are_no_frames(tmp_path: Path) -> None:
    for array in other_arrays(Court(get_codec("eden", 1), tmp_path).original.frame):
        with pytest.raises(FrameError):
            unpack(array)


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="the high-water mark can be set back on Linux alone")
@pytest.mark.parametrize(
    ("codec", "bits", "kind", "blocks"),
    [("eden", 1, FrameKind.UPDATE, 16384), ("none", 32, FrameKind.MODEL, 8192)],
)
def test_judging_a_large_frame_takes_little_memory_and_time_whatever_is_in_it(
    codec: str, bits: int, kind: FrameKind, blocks: int, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LARGE, codec, str(bits), kind.name, str(blocks), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    cost = json.loads(result.stdout)
    assert cost["faults"] == []
    assert len(cost["growth"]) > 10
    assert cost["excesses"] == [], cost
