"""A client that is sent anything refuses it, asks for a snapshot, or holds a replica; it never
fails otherwise."""

from __future__ import annotations

import numpy as np
import receiving
from receiving import MUTATIONS, Scene, scenes

from fedsense_core.protocol.replica import Replica

BUNDLES = 4_000
MAY_BE_RIGHT = {"bundle: other frames", "bundle: one frame mutated", "bundle: unchanged"}


def test_mutated_broadcasts_are_refused_or_lead_to_a_replica() -> None:
    tally = receiving.trial(BUNDLES, seed=0)
    assert tally.faults == []
    assert tally.frames == BUNDLES
    assert set(tally.outcomes) == {*MUTATIONS, "bundle: unchanged"}
    assert {name for name, counts in tally.outcomes.items() if counts["Replica"]} == MAY_BE_RIGHT
    assert {outcome for counts in tally.outcomes.values() for outcome in counts} == {
        "Replica",
        "FrameError",
        "NeedsSnapshot",
    }


def test_the_bundles_that_are_mutated_are_right_themselves() -> None:
    for scene in scenes():
        assert isinstance(scene.answer(scene.bundled), Replica), scene.name


def test_an_answer_that_should_not_be_is_found() -> None:
    scene: Scene = scenes()[0]
    right = receiving.Mutated(scene.bundled.tobytes())
    assert scene.fault(right, OverflowError("too large"))
    assert scene.fault(right, scene.answer(scene.bundled))  # an old checksum, as far as the judge knows
    flipped = MUTATIONS["bundle: bits flipped"](scene, np.random.default_rng(0))
    assert not flipped.sealed
