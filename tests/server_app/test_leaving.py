"""An institution leaves, and the run goes on from before it joined, as if it had never been
there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from federation import Federation, same_bits
from flwr.app import Message

from fedsense_core.errors import ConfigError
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.tools.health.run_state import share_of

NO_PAUSE = {"federation.min_clients": 2, "federation.deadline_s": 0.3}


def refuse(task: Message, reply: Message | None) -> Message:
    assert reply is not None
    nonce = reply.content.config_records["reply"]["nonce"]
    assert isinstance(nonce, bytes)
    return Message(TrainReply("gamma", "refused", "not yet", nonce=nonce).to_records(), reply_to=task)


def without_gamma(fed: Federation) -> Federation:
    del fed.grid.contexts[fed.node("gamma")]
    return fed


@pytest.mark.slow
def test_run_goes_on_from_before_a_site_joined_as_if_it_had_never_been_there(
    federation: Callable[..., Federation],
) -> None:
    joined = federation("joined", changes={"run.rounds": 4, "run.keep_checkpoints": 1, **NO_PAUSE})
    joined.grid.faults[1, joined.node("gamma")] = refuse
    joined.run()
    folder = joined.folder.path
    share = share_of(folder, "gamma")
    assert (share.counted, share.left_out, share.kept_before) == ([2, 3, 4], {1: "not yet"}, [1])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["round-000001", "round-000004"]

    def going_on(name: str, earlier: Federation, taken: int) -> Federation:
        changes: dict[str, Any] = {"run.rounds": 4, "run.keep_checkpoints": 1, **NO_PAUSE}
        changes |= {"run.continued_from": str(earlier.folder.path), "run.rounds_before": taken}
        sites = {"federation.sites": joined.run_config["federation.sites"]}
        return without_gamma(federation(name, changes=changes | sites))

    never = without_gamma(federation("never", changes={"run.rounds": 4, "run.keep_checkpoints": 4, **NO_PAUSE}))
    never.run()
    left, right = (going_on(f"from-{one.root.name}", one, 1) for one in (joined, never))
    left.run()
    right.run()
    assert [line["accepted"] for line in left.lines()] == [["alpha", "beta"]] * 4
    assert same_bits(left.state().weights, right.state().weights)
    with pytest.raises(ConfigError, match="keeps the checkpoints of rounds 1, 4: set one of these"):
        going_on("too-late", joined, 3).run()
