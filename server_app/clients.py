"""Who is connected, which site each node speaks for, and what the server knows each site to have.

Flower's node ids change with every run of a simulation and with every restart of a SuperNode
without a key, so everything that must outlive them is kept by site name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

from fedsense_core.errors import Rejected
from fedsense_core.protocol.messages import Handshake
from fedsense_core.state import State


@dataclass(frozen=True)
class Acknowledged:
    """What the last aggregated reply of a site proves it to have on its disk."""

    round: int
    version: int
    """Of the model."""


@dataclass
class Clients:
    """Nodes by site, and what each site has."""

    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    """By site."""
    sites: dict[int, str] = field(default_factory=dict)
    """Node id -> site, of this Flower run only."""
    chips: dict[str, int] = field(default_factory=dict)
    """How many each site says it has, in its last handshake with this Flower run."""
    lost: set[str] = field(default_factory=set)
    """Sites whose state is gone: they are served a snapshot."""
    drawn: dict[str, str] = field(default_factory=dict)
    """Site -> digest of the first replica as it draws it, hex; of this Flower run only."""
    newly_lost: list[str] = field(default_factory=list)
    """Those of them that no round has reported yet."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each site took for its last answer, from the task to the reply."""

    def unknown(self, nodes: list[int]) -> list[int]:
        """Return the connected nodes that have not answered a handshake."""
        return [node for node in nodes if node not in self.sites]

    def drop_absent(self, nodes: list[int]) -> list[str]:
        """Drop nodes that are no longer connected, so that restarted ones can take over; return
        their sites."""
        left = sorted(site for node, site in self.sites.items() if node not in nodes)
        self.sites = {node: site for node, site in self.sites.items() if node in nodes}
        return left

    def drop(self, site: str) -> None:
        """Drop the node of a site, so that it is asked again who it is."""
        self.sites = {node: name for node, name in self.sites.items() if name != site}

    def enter(self, node: int, handshake: Handshake, code: str, most_chips: float = math.inf) -> str:
        """Enter a node. Returns why it cannot take part, or an empty string.

        ``most_chips`` is the most that it may say it has where its weight depends on them.
        """
        if handshake.problem or not handshake.site:
            return handshake.problem or "it gives no site name"
        if handshake.code != code:
            return f"it runs other code ({handshake.code}) than the server ({code}); use the same release everywhere"
        if handshake.site in self.sites.values():
            return f"site {handshake.site!r} is already taken by another node; every site file needs its own name"
        if most_chips < math.inf and not 1 <= handshake.chips <= most_chips:
            return (
                f"it says it has {handshake.chips} chips, which are its weight (aggregation.weights): 1 to "
                f"{most_chips:g} are believed (admission.max_chips)"
            )
        self.sites[node], self.chips[handshake.site] = handshake.site, handshake.chips
        self.drawn[handshake.site] = handshake.drawn
        has = self.acknowledged.get(handshake.site)
        if has and has.round not in handshake.rounds:
            self.lose(handshake.site)
        return ""

    def state_of(self, site: str) -> Acknowledged | None:
        """Return what a site has, or None where it has nothing that counts."""
        return None if site in self.lost else self.acknowledged.get(site)

    def draws(self, site: str, digest: bytes) -> bool:
        """Return whether a site draws the first replica with this digest itself, as far as is
        known."""
        return site not in self.lost and self.drawn.get(site) == digest.hex()

    def lose(self, site: str) -> None:
        """Note that a site no longer has what its last reply was built on."""
        if site in self.acknowledged and site not in self.lost:
            self.newly_lost.append(site)
        self.lost.add(site)

    def heed(self, rejected: Iterable[Rejected]) -> None:
        """Draw the consequence of rejections: a snapshot next time, or another handshake."""
        for one in rejected:
            match one.cause:
                case "needs-snapshot":
                    self.lose(one.node)
                case "other-site":
                    self.drop(one.node)
                case "bad":
                    pass
                case _:
                    assert_never(one.cause)

    def report_losses(self) -> list[str]:
        """Return, once, the sites whose loss was not reported yet, in order of name."""
        reported, self.newly_lost = sorted(self.newly_lost), []
        return reported

    def acknowledge(self, site: str, server_round: int, version: int) -> None:
        """Note that a site's update was aggregated, so it will commit the state behind it."""
        self.lost.discard(site)
        self.acknowledged[site] = Acknowledged(server_round, version)

    def state_dict(self) -> State:
        """Return what outlives the connection."""
        acknowledged = {site: asdict(has) for site, has in self.acknowledged.items()}
        return {"acknowledged": acknowledged, "seconds": dict(self.seconds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what each site has."""
        self.acknowledged = {site: Acknowledged(**has) for site, has in state["acknowledged"].items()}
        self.seconds = {site: float(seconds) for site, seconds in state.get("seconds", {}).items()}
