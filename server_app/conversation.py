"""A round's messages and answers: whom it waits for and how long, whom it asks again, and what
becomes of it when too few replies count.

A SuperNode works on one message at a time, and nothing ends its work. So a node whose task is still
open is not given another one; where the round went on without it, its answer frees it for later
ones.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.common.logger import log
from flwr.serverapp import Grid

from fedsense_core.config import FederationSection
from fedsense_core.errors import RunPaused
from server_app.clients import Clients
from server_app.cohort import Cohort
from server_app.reasons import grouped
from server_app.reply_limits import Limits
from server_app.round import Round
from server_app.transport import POLL_MAX_S, POLL_S, Answer, Transport

LEAST_PATIENCE_S = 120.0
"""Nobody is late before, and so long a lost client may take to come back: a killed SuperNode is
refused for a minute."""
LONGEST_PAUSE_S = 3600.0


@dataclass
class Task:
    """One task under way."""

    site: str
    round: int
    began: float
    """When the round first asked the site for it; on the monotonic clock."""
    sent: float
    """When it was sent last."""
    lost: Answer | None = None
    """What came instead of a reply, until it is sent again."""
    gone: float = 0.0
    """When that came."""


@dataclass(frozen=True)
class Voice:
    """What a conversation needs of the strategy."""

    ask: Callable[[Round, int, str], None]
    """Address the round's task to a node of a site."""
    admit: Callable[[Round, Answer], None]
    """Judge what came."""
    settle: Callable[[Round], bool]
    """Compare the replies of a round; return whether enough are left."""
    limits: Limits
    """How large a reply may be: a larger one is not even pulled."""


class Conversation:
    """What one grid is told and answers, over all rounds of a run."""

    def __init__(
        self, grid: Grid, federation: FederationSection, cohort: Cohort, clients: Clients, voice: Voice
    ) -> None:
        self.grid, self.federation, self.cohort, self.clients, self.voice = grid, federation, cohort, clients, voice
        self.transport = Transport(grid, voice.limits)
        self.tasks: dict[int, Task] = {}
        """By node: the task that it has not answered."""
        self.again: Counter[str] = Counter()
        """By site: how often it was lost in this round, and asked again."""

    def busy(self) -> dict[int, str]:
        """Return node -> site of those that may still be at work on a task."""
        over = time.monotonic() - self.federation.deadline_s  # its time to live: no answer can come any more
        self._forget([node for node, task in self.tasks.items() if task.sent < over])
        return {node: task.site for node, task in self.tasks.items()}

    def hold(self, round: Round, deadline_s: float) -> None:
        """Ask and hear until enough replies count.

        Raises RunPaused where they do not after all repetitions.
        """
        self.again.clear()
        self._hear(round, deadline_s)
        for repetition in range(self.federation.retries):
            if self.voice.settle(round):
                return
            self._pause(round, repetition)
            self._ask_missing(round)
            self._hear(round, deadline_s)
        if not self.voice.settle(round):
            round.reject_silent()
            raise RunPaused(
                f"{round.shortage}, repeated {self.federation.retries} times (federation.retries). "
                f"{grouped(round.rejected) or 'No client was asked'}. The run is paused, nothing of it is lost: once "
                "the cause is gone, the same command continues it with this round"
            )

    def _hear(self, round: Round, deadline_s: float) -> None:
        """Send what is to be sent, and admit answers until all are in, or the others are late."""
        self._send(round)
        deadline, pause = time.monotonic() + deadline_s, POLL_S
        while True:
            over = time.monotonic() >= deadline
            last_look = over or self._others_are_late(round)
            before = len(self.tasks)
            for answer in self.transport.look():
                self._take(round, answer)
            came = len(self.tasks) < before
            if not last_look:
                self._ask_lost(round)
            if last_look or not self._of(round):
                break
            pause = POLL_S if came else min(POLL_MAX_S, pause * 1.5)
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        self._go_on_without(round, over)

    def _send(self, round: Round) -> None:
        messages, round.tasks = round.tasks, []
        refused = self.transport.send(messages)
        now = time.monotonic()
        for node in (message.metadata.dst_node_id for message in messages):
            task = self.tasks.setdefault(node, Task(round.site(node), round.number, now, now))
            task.sent, task.lost = now, None
        for answer in refused:
            self._take(round, answer)

    def _take(self, round: Round, answer: Answer) -> None:
        """Admit what came of this round's tasks; what came of an earlier one's only shows how long
        its client takes, and that it is free."""
        task = self.tasks.get(answer.node)
        now = time.monotonic()
        if task and task.round != round.number:
            del self.tasks[answer.node]
            if not answer.reason:
                self.clients.seconds[task.site] = now - task.sent
            log(INFO, "site %s is done with its task of round %d, which went on without it", task.site, task.round)
        elif task and answer.lost and self._may_ask_again(task, now):
            task.lost, task.gone = answer, now
        elif answer.node in round.asked:
            self.tasks.pop(answer.node, None)
            self.voice.admit(round, answer)
            if task and task.site in round.sites:
                self.clients.seconds[task.site] = now - task.sent

    def _may_ask_again(self, task: Task, now: float) -> bool:
        """Return whether there is time and patience left for a client that was lost. Late in a
        round there is not: the message's own time to live ends with the deadline, as an error."""
        in_time = now - task.began < self.federation.deadline_s / 2
        return in_time and self.again[task.site] < self.federation.retries

    def _ask_lost(self, round: Round) -> None:
        """Ask clients once more that were lost, as soon as they are connected again."""
        lost = {node: task for node, task in self._of(round).items() if task.lost}
        connected = self.transport.connected() if lost else None
        if connected is None:
            return
        for node, task in lost.items():
            if node in connected and task.lost:
                self.again[task.site] += 1
                round.note(task.site, f"asked again: {task.lost.reason}")
                self.voice.ask(round, node, task.site)
            elif time.monotonic() - task.gone > LEAST_PATIENCE_S:
                self._give_up(round, node)
        self._send(round)

    def _give_up(self, round: Round, node: int) -> None:
        """Reject a client that was lost."""
        task = self.tasks.pop(node)
        if task.lost:
            self.voice.admit(round, task.lost)

    def _others_are_late(self, round: Round) -> bool:
        """Return whether enough have answered, and the others take much longer than they did."""
        missing, asked = self._of(round), {*round.asked.values()}
        enough = max(self.federation.quorum, -(-len(asked) // 2))
        if not (missing and self.cohort.admitted and self.federation.late_factor and len(round.accepted) >= enough):
            return False
        now, allowed_s = time.monotonic(), {node: self._allowed_s(round, task.site) for node, task in missing.items()}
        if any(now - task.began <= allowed_s[node] for node, task in missing.items()):
            return False
        why = "no answer within %.0f s, while others have answered (federation.late_factor)"
        round.late |= {node: why % seconds for node, seconds in allowed_s.items()}
        return True

    def _allowed_s(self, round: Round, site: str) -> float:
        """Return how long the round waits for a site once enough have answered."""
        took_s = self.clients.seconds
        others_s = [took_s[one] for one in round.sites if one in took_s]
        if not others_s:  # all of them answered before the server was interrupted
            return self.federation.deadline_s
        return max(LEAST_PATIENCE_S, patience_s(others_s, took_s.get(site, 0.0), self.federation.late_factor))

    def _go_on_without(self, round: Round, over: bool) -> None:
        """Let the round go on without who is missing; who may still answer stays busy."""
        for node, task in self._of(round).items():
            if task.lost:
                self._give_up(round, node)
            elif over:
                self._forget([node])
                if self.transport.trouble:
                    round.late[node] = self.transport.trouble

    def _pause(self, round: Round, repetition: int) -> None:
        """Say why too few replies count, and wait, each time twice as long."""
        round.reject_silent(self._of(round))
        self.clients.heed(round.rejected)
        reasons = grouped(round.forgive())
        pause_s = min(LONGEST_PAUSE_S, self.federation.pause_s * 2**repetition)
        text = "%s (%s); repeated in %g s, %d times before the run is paused"
        log(WARNING, text, round.shortage, reasons or "nobody was asked", pause_s, self.federation.retries - repetition)
        time.sleep(pause_s)

    def _ask_missing(self, round: Round) -> None:
        self.cohort.forgive()
        chosen, absent = self.cohort.choose(self.grid, round.number, self.busy())
        round.rejected += [one for one in absent if one not in round.rejected]
        for node, site in chosen:
            if site not in round.sites:
                self.voice.ask(round, node, site)

    def _of(self, round: Round) -> dict[int, Task]:
        """Return the tasks of this round that are not answered."""
        return {node: task for node, task in self.tasks.items() if task.round == round.number}

    def _forget(self, nodes: list[int]) -> None:
        self.transport.drop(nodes)
        for node in nodes:
            del self.tasks[node]


def patience_s(others: list[float], own: float, factor: float) -> float:
    """Return after how many seconds a client is late: f max(m, min(t, f m)), with m the median of
    what ``others`` took in this round and t what it took itself the last time.

    So whoever is always slow is waited for, and nobody can keep a round open for more than f² m.
    """
    median = statistics.median(others)
    return factor * max(median, min(own, factor * median))
