"""The labelled points at which a process is killed: what is seen of a run from outside just
before, who is killed, and which replies that may cost.

To tighten the suite, shorten ``may_lose`` or set ``commands`` to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.course import Course
from faults.processes import SITES

FIRST, LAST = 1, 2
"""Rounds of the runs."""


@dataclass(frozen=True)
class Point:
    """One kill."""

    victim: str
    """superlink, superexec, serverapp, supernode or clientapp; the latter two of beta."""
    when: str
    seen: Callable[[Course], bool]
    """Whether the run is there."""
    may_lose: frozenset[tuple[int, str]] = frozenset()
    """Round and site of replies that may not count; the record must name them."""
    commands: int = 2
    """How often a person gives the command at most: once where the run must go on by itself."""

    @property
    def label(self) -> str:
        return f"{self.victim}: {self.when}".replace(" ", "-").replace(":-", "-at-")

    def pid(self, course: Course) -> int:
        """Return the process to kill."""
        deployed = course.deployed
        match self.victim:
            case "superlink":
                return deployed.kept["superlink"].pid
            case "superexec":
                return deployed.kept["coordinator superexec"].pid
            case "serverapp":
                return deployed.app("coordinator")
            case "supernode":
                return deployed.kept["beta supernode"].pid
            case _:
                return deployed.app("beta")


def lost(*rounds: int) -> frozenset[tuple[int, str]]:
    """Return the replies of beta in some rounds."""
    return frozenset((number, "beta") for number in rounds)


def anyones(number: int) -> frozenset[tuple[int, str]]:
    """Return all replies of a round: a SuperLink that is away for more than two heartbeats takes
    the institutions for gone."""
    return frozenset((number, site) for site in SITES)


def server_app_starts(course: Course) -> bool:
    return bool(course.deployed.app("coordinator"))


def run_folder(course: Course) -> bool:
    return course.has("config.json")


def first_checkpoint(course: Course) -> bool:
    return course.has("checkpoints/round-000000")


def handshake(course: Course) -> bool:
    return course.asked("beta") >= 1


def chips(course: Course) -> bool:
    return course.keeps("beta", "chips/*") or course.keeps("beta", "chips/.*")


def asked(number: int) -> Callable[[Course], bool]:
    """Beta's ClientApp for a round has begun; it has not read its task yet."""
    return lambda course: course.asked("beta") >= 1 + number and bool(course.deployed.app("beta"))


def keeping(number: int) -> Callable[[Course], bool]:
    """Beta writes what it must remember of a round, or has just done so."""
    return lambda course: course.keeps("beta", f"run-*/.writing-round-{number:06d}") or kept(number)(course)


def kept(number: int) -> Callable[[Course], bool]:
    """Beta has trained a round and remembers it; its reply has not left."""
    return lambda course: course.keeps("beta", f"run-*/round-{number:06d}")


def replied(number: int) -> Callable[[Course], bool]:
    """Beta's ClientApp has handed its reply to the SuperNode."""
    return lambda course: kept(number)(course) and not course.deployed.app("beta")


def spooled(number: int) -> Callable[[Course], bool]:
    """The first reply of a round has been accepted."""
    return lambda course: course.lines() == number and course.has("spool/*.frame")


def recorded(number: int) -> Callable[[Course], bool]:
    """The line of a round is in the record; its checkpoint may not be there yet."""
    return lambda course: course.lines() == number + 1


def saving(number: int) -> Callable[[Course], bool]:
    name = f"round-{number:06d}"
    return lambda course: course.has(f"checkpoints/.writing-{name}") or course.has(f"checkpoints/{name}")


def saved(number: int) -> Callable[[Course], bool]:
    return lambda course: course.has(f"checkpoints/round-{number:06d}")


def exporting(course: Course) -> bool:
    return course.has(".writing-encoder") or course.has("encoder")


POINTS = (
    Point("superlink", "the ServerApp starts", server_app_starts),
    Point("superlink", "institutions are asked who they are", handshake),
    Point("superlink", "round 1 is trained", asked(FIRST), anyones(FIRST)),
    Point("superlink", "beta has trained round 1", kept(FIRST), anyones(FIRST)),
    Point("superlink", "round 1 is saved", saved(FIRST), anyones(LAST)),
    Point("superlink", "beta has replied in round 2", replied(LAST), anyones(LAST)),
    Point("serverapp", "the run folder is made", run_folder),
    Point("serverapp", "the first model is saved", first_checkpoint),
    Point("superexec", "round 1 is trained", asked(FIRST)),
    Point("serverapp", "a reply of round 1 is accepted", spooled(FIRST)),
    Point("serverapp", "round 1 is recorded", recorded(FIRST)),
    Point("serverapp", "round 1 is being saved", saving(FIRST)),
    Point("serverapp", "the encoder is being written", exporting),
    Point("supernode", "the ServerApp starts", server_app_starts),
    Point("supernode", "institutions are asked who they are", handshake, lost(FIRST)),
    Point("supernode", "round 1 is trained", asked(FIRST), lost(FIRST)),
    Point("supernode", "beta has trained round 1", kept(FIRST), lost(FIRST)),
    Point("supernode", "beta has replied in round 1", replied(FIRST), lost(FIRST)),
    Point("supernode", "round 1 is saved", saved(FIRST), lost(LAST)),
    Point("clientapp", "institutions are asked who they are", handshake, lost(FIRST)),
    Point("clientapp", "chips are cut", chips, lost(FIRST)),
    Point("clientapp", "round 1 is trained", asked(FIRST), lost(FIRST)),
    Point("clientapp", "beta keeps its state of round 1", keeping(FIRST), lost(FIRST)),
    Point("clientapp", "beta has trained round 2", kept(LAST), lost(LAST)),
)
IN_CI = (POINTS[7], POINTS[1], POINTS[12])
"""One after the other in one run of one round."""
