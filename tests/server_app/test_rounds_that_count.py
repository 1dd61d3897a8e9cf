"""No round is spent: whoever is missing is asked again, nobody is waited for in vain, and a run
that cannot go on says why and is continued to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from faulty_grid import Fault, error, once, refusal
from federation import SITES, Federation, same_bits
from flwr.app import Message, RecordDict
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.config import resolve
from fedsense_core.errors import RunPaused
from fedsense_core.run_folder import settings_of
from server_app import cohort, conversation
from server_app.conversation import LEAST_PATIENCE_S, patience_s
from server_app.session import run_session

Make = Callable[..., Federation]
CHANGES: dict[str, Any] = {
    **{"run.rounds": 3, "uplink.prediction": True, "distillation.kind": "none"},
    "federation.deadline_s": 5_000.0,
}


class Clock:
    """A clock that only sleeping moves, and what a test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(conversation, "time", clock)
    return clock


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Return what the run makes of three clients that are all well."""
    fed = Federation(tmp_path_factory.mktemp("undisturbed"), changes=CHANGES)
    fed.run()
    return fed.state().weights


def lost(task: Message, reply: Message | None) -> None:
    """Lose a reply."""


def by_key(fed: Federation) -> None:
    """Admit every node by a key under the name of its site."""
    fed.grid.names = {fed.node(site): site for site in SITES}


def test_round_below_the_quorum_is_repeated_and_nobody_works_twice(
    federation: Make, clock: Clock, undisturbed: torch.Tensor
) -> None:
    fed = federation(changes=CHANGES | {"federation.quorum": 3})
    fed.grid.faults = {
        (2, fed.node("alpha")): once(refusal("alpha", "its disk is full")),
        (2, fed.node("beta")): once(lost),
    }
    fed.run()
    assert [line["accepted"] for line in fed.lines()] == [list(SITES)] * 3
    assert [fed.grid.asked.count((2, fed.node(site))) for site in SITES] == [2, 2, 1]
    notes = {one["site"]: one["note"] for one in fed.lines()[1]["notes"]}
    assert notes["alpha"] == "asked again: its disk is full"
    assert "no answer within 5000 s" in notes["beta"]
    assert same_bits(fed.state().weights, undisturbed)


def test_run_is_paused_after_growing_pauses_and_is_continued_to_the_same_bits(
    federation: Make, clock: Clock, undisturbed: torch.Tensor
) -> None:
    changes = CHANGES | {"federation.quorum": 2, "federation.pause_s": 7.0, "federation.retries": 3}
    fed = federation(changes=changes)
    fed.grid.faults = {(2, fed.node(site)): refusal(site, "its disk is full") for site in SITES[1:]}
    words = r"round 2: 1 accepted, .*quorum asks for 2, repeated 3 times.*beta, gamma: its disk is full.*same command"
    with pytest.raises(RunPaused, match=words):
        fed.run()
    assert [seconds for seconds in clock.slept if seconds >= 7] == [7, 14, 28]
    assert fed.grid.asked.count((2, fed.node("alpha"))) == 1
    assert [line["round"] for line in fed.lines()] == [1], "the round is not spent"
    assert not fed.folder.is_finished
    given = settings_of(fed.folder.path)
    again = federation(changes=changes, first_node=500)
    lists = {key: value for key, value in again.run_config.items() if key not in given}
    assert set(lists) == {"model.projector"}, "what only flower.toml can hold"
    run_session(resolve(lists | given), again.grid)
    assert (2, again.node("alpha")) not in again.grid.asked, "its update waits on disk"
    assert [line["accepted"] for line in again.lines()] == [list(SITES)] * 3
    assert same_bits(again.state().weights, undisturbed)


def test_clients_that_are_lost_within_a_round_are_asked_again_in_it(
    federation: Make, clock: Clock, undisturbed: torch.Tensor
) -> None:
    fed = federation(changes=CHANGES)
    back = fed.grid.contexts[fed.node("beta")]
    sleep = clock.sleep

    def away(task: Message, reply: Message | None) -> Message:
        del fed.grid.contexts[fed.node("beta")]
        failed = error(5, "Node Unavailable", node=1)(task, reply)
        assert isinstance(failed, Message)
        return failed

    def sleep_until_it_is_back(seconds: float) -> None:
        sleep(seconds)
        if clock.now > 1060:
            fed.grid.contexts.setdefault(fed.node("beta"), back)

    clock.sleep = sleep_until_it_is_back  # type: ignore[method-assign]
    fed.grid.faults = {
        (2, fed.node("alpha")): once(error(8, "ClientApp stopped responding."), 2),
        (2, fed.node("beta")): once(away),
        (2, fed.node("gamma")): once(error(3, "Message Unavailable", node=1)),
    }
    fed.run()
    assert [fed.grid.asked.count((2, fed.node(site))) for site in SITES] == [3, 2, 2]
    assert clock.now > 1060, "a node that is gone is asked once it is back"
    assert not any(line["rejected"] for line in fed.lines())
    assert same_bits(fed.state().weights, undisturbed)


@pytest.mark.parametrize("gone", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["crashing", "gone"])
def test_client_that_is_lost_each_time_is_left_out_and_named(federation: Make, clock: Clock, gone: bool) -> None:
    fed = federation(changes=CHANGES | {"run.rounds": 1, "federation.retries": 2})

    def fail(task: Message, reply: Message | None) -> Any:
        if gone:
            del fed.grid.contexts[fed.node("beta")]
        return error(8, "ClientApp stopped responding.")(task, reply)

    fed.grid.faults = {(1, fed.node("beta")): fail}
    fed.run()
    (line,) = fed.lines()
    assert fed.grid.asked.count((1, fed.node("beta"))) == (1 if gone else 3)
    assert line["rejected"] == [{"node": "beta", "reason": "error 8: ClientApp stopped responding."}]
    assert clock.now - 1000 < LEAST_PATIENCE_S + 10 if gone else clock.now - 1000 < 10


def slow(clock: Clock, seconds: float) -> Fault:
    """Return a fault that answers honestly, after some time."""

    def answer(task: Message, reply: Message | None) -> Message | None:
        clock.now += seconds
        return reply

    return answer


def test_silent_institution_costs_a_multiple_of_the_median_and_is_left_alone_until_it_is_free(
    federation: Make, clock: Clock
) -> None:
    fed = federation(changes=CHANGES | {"federation.min_clients": 2})
    by_key(fed)
    gamma = fed.node("gamma")
    fed.grid.faults = {(n, fed.node(site)): slow(clock, 100) for n in (1, 2, 3) for site in SITES[:2]}
    fed.grid.at_work = {(1, gamma)}
    honest = fed.grid.pull_messages

    def pull(ids: list[str]) -> Any:
        if (2, fed.node("beta")) in fed.grid.asked:
            fed.grid.at_work.clear()  # its answer to round 1 comes while round 2 goes on
        return honest(ids)

    fed.grid.pull_messages = pull  # type: ignore[assignment, method-assign]
    fed.run()
    first, second, third = fed.lines()
    late = "no answer within 450 s, while others have answered (federation.late_factor)"  # 3 x the median of 100, 200
    assert first["rejected"] == [{"node": "gamma", "reason": late}]
    assert second["rejected"] == [{"node": "gamma", "reason": "still at work on an earlier round's task"}]
    assert third["accepted"] == list(SITES)
    assert (2, gamma) not in fed.grid.asked
    assert clock.now - 1000 < 450 + 200 + 200 + 30


def test_nobody_is_late_in_a_simulation(federation: Make, clock: Clock) -> None:
    fed = federation(changes=CHANGES | {"run.rounds": 1})
    fed.grid.faults = {(1, fed.node("gamma")): slow(clock, 4_000)} | {
        (1, fed.node(site)): slow(clock, 1) for site in SITES[:2]
    }
    fed.run()
    assert fed.lines()[0]["accepted"] == list(SITES)


def test_who_is_always_slow_is_waited_for_up_to_a_bound() -> None:
    assert patience_s([100, 200, 300], own=0, factor=3) == 600
    assert patience_s([100, 200, 300], own=150, factor=3) == 600
    assert patience_s([100, 200, 300], own=500, factor=3) == 1500
    assert patience_s([100, 200, 300], own=5_000, factor=3) == 1800


def unreachable(grid: Any, name: str, times: int) -> None:
    """Let some calls of a grid fail as Flower's do when its own repetitions are over."""
    honest, left = getattr(grid, name), iter(range(times))

    def call(*arguments: Any) -> Any:
        if (2, 102) in grid.asked and next(left, None) is not None:
            request = httpx.Request("POST", "https://127.0.0.1/pull")
            raise httpx.HTTPStatusError("500 disk I/O error", request=request, response=httpx.Response(500))
        return honest(*arguments)

    setattr(grid, name, call)


@pytest.mark.parametrize(
    "call", ["pull_messages", *(pytest.param(one, marks=pytest.mark.slow) for one in ("push_messages", "get_nodes"))]
)
def test_superlink_that_fails_for_a_while_costs_nothing_but_time(
    federation: Make, clock: Clock, call: str, undisturbed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "PAUSE_S", 0.0)
    fed = federation(changes=CHANGES | {"federation.wait_s": 60.0})
    unreachable(fed.grid, call, 4)
    fed.run()
    assert [line["accepted"] for line in fed.lines()] == [list(SITES)] * 3
    assert same_bits(fed.state().weights, undisturbed)


def test_superlink_that_stays_away_is_named(federation: Make, clock: Clock) -> None:
    fed = federation(changes=CHANGES | {"federation.retries": 1})
    unreachable(fed.grid, "pull_messages", 10_000)
    words = r"SuperLink cannot be reached \(HTTPStatusError: 500 disk I/O error\): see its own log, and its disk"
    with pytest.raises(RunPaused, match=words):
        fed.run()
    assert [line["round"] for line in fed.lines()] == [1]


def test_flower_hands_the_replies_of_a_run_to_no_other() -> None:
    """Why whoever was at work when the server was killed is asked again."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    state = InMemoryLinkState(SimpleNamespace(), ObjectStoreFactory(":memory:").store())  # type: ignore[arg-type]
    state.message_ins_store["id"] = Message(RecordDict(), 5, "train")
    with pytest.raises(ValueError, match="invalid IDs"):
        state.get_message_res({"id"}, run_id=8)
