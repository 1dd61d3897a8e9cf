"""What a server that is interrupted finds again: whole, of this very round, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation import tiny

from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable
from server_app.round import Expected
from server_app.spool import Spool

CONFIG = tiny()
TABLE = TensorTable.from_shapes({"a": (3,)})
REPLICA = Replica(4, torch.ones(3), torch.zeros(3))
EXPECTED = Expected(CONFIG, Stream(77, 0, TABLE, 0.9), 5, REPLICA, REPLICA.digest())
FRAME = np.arange(40, dtype=np.uint8)
REPLY = TrainReply(
    *("alpha", "trained"),
    metrics={"num-examples": 8.0, "ssl-loss": 1 / 3},
    frame=FRAME,
    note="a word",
    attachments={"sums": bytes(range(256))},
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_reply_comes_back_as_it_was(spool: Spool) -> None:
    path = spool.keep(REPLY, EXPECTED, 1234, 0.5)
    (kept,) = spool.kept(EXPECTED)
    assert (kept.path, kept.bytes_up, kept.factor) == (path, 1234, 0.5)
    assert kept.reply.frame is not None
    assert kept.reply.frame.tobytes() == FRAME.tobytes()
    assert replace(kept.reply, frame=None) == replace(REPLY, frame=None)


def test_every_changed_byte_is_noticed_and_what_is_damaged_is_gone(spool: Spool) -> None:
    for suffix in (".frame", ".json"):
        for place in range(0, 600, 7):
            file = spool.keep(REPLY, EXPECTED, 1234, 0.5).with_suffix(suffix)
            content = bytearray(file.read_bytes())
            content[place % len(content)] ^= 1
            file.write_bytes(content)
            assert list(spool.kept(EXPECTED)) == []
            assert not any(spool.folder.iterdir())


def test_torn_files_are_noticed(spool: Spool) -> None:
    for suffix in (".frame", ".json"):
        for left in (0, 1, 20):
            file = spool.keep(REPLY, EXPECTED, 1234, 0.5).with_suffix(suffix)
            file.write_bytes(file.read_bytes()[:left])
            assert list(spool.kept(EXPECTED)) == []
    spool.keep(REPLY, EXPECTED, 1234, 0.5).with_suffix(".json").unlink()
    assert list(spool.kept(EXPECTED)) == []


OTHERS: dict[str, Any] = {
    "round": {"round": 6},
    "run": {"stream": Stream(78, 0, TABLE, 0.9)},
    "replica": {"digest": Replica(4, torch.zeros(3), torch.zeros(3)).digest()},
    "settings": {"config": tiny(train__learning_rate=0.5)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_reply_to_something_else_does_not_count(spool: Spool, other: str) -> None:
    spool.keep(REPLY, EXPECTED, 1234, 0.5)
    assert list(spool.kept(replace(EXPECTED, **OTHERS[other]))) == []
    assert not any(spool.folder.iterdir())


def test_two_sites_with_one_harmless_name_have_a_frame_each(spool: Spool) -> None:
    paths = {spool.keep(replace(REPLY, site=site), EXPECTED, 1, 1.0) for site in ("a b", "a_b")}
    assert len(paths) == 2
    assert sorted(kept.reply.site for kept in spool.kept(EXPECTED)) == ["a b", "a_b"]
