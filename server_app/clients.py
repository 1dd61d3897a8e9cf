"""Who is connected, which site each node speaks for, and what the server knows each site to hold.

Flower's node ids change with every run of a simulation and with every restart of a SuperNode
without a key, so everything that must outlive them is kept by site name."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedsense_core.protocol.messages import Hello


@dataclass(frozen=True)
class Held:
    """What the last aggregated reply of a site proves it to hold."""

    round: int
    version: int


@dataclass
class Roster:
    """Nodes by site, and what each site holds."""

    held: dict[str, Held] = field(default_factory=dict)
    """By site; saved with the checkpoint."""
    sites: dict[int, str] = field(default_factory=dict)
    """Node id -> site, of this Flower run only."""
    lost: set[str] = field(default_factory=set)
    """Sites whose state is gone: they are served a snapshot."""
    newly_lost: list[str] = field(default_factory=list)
    """Those of them that no round has told of yet."""

    def unknown(self, nodes: list[int]) -> list[int]:
        """Return the connected nodes that have not introduced themselves."""
        return [node for node in nodes if node not in self.sites]

    def forget_absent(self, nodes: list[int]) -> list[str]:
        """Drop nodes that are no longer connected, so that restarted ones can take over; return
        their sites."""
        left = sorted(site for node, site in self.sites.items() if node not in nodes)
        self.sites = {node: site for node, site in self.sites.items() if node in nodes}
        return left

    def forget(self, site: str) -> None:
        """Drop the node of a site, so that it is asked again who it is."""
        self.sites = {node: name for node, name in self.sites.items() if name != site}

    def introduce(self, node: int, hello: Hello, code: str) -> str:
        """Enter a node. Returns why it cannot take part, or an empty string."""
        if hello.problem or not hello.site:
            return hello.problem or "it gives no site name"
        if hello.code != code:
            return f"it runs other code ({hello.code}) than the server ({code}); use the same release everywhere"
        if hello.site in self.sites.values():
            return f"site {hello.site!r} is already taken by another node; every site file needs its own name"
        self.sites[node] = hello.site
        held = self.held.get(hello.site)
        if held and held.round not in hello.rounds:
            self.lose(hello.site)
        return ""

    def acknowledged(self, site: str) -> Held | None:
        """Return what a site holds, or None where it holds nothing that counts."""
        return None if site in self.lost else self.held.get(site)

    def lose(self, site: str) -> None:
        """Note that a site no longer holds what its last reply was built on."""
        if site in self.held and site not in self.lost:
            self.newly_lost.append(site)
        self.lost.add(site)

    def tell_losses(self) -> list[str]:
        """Return, once, the sites whose loss nobody has told of yet, in order of name."""
        told, self.newly_lost = sorted(self.newly_lost), []
        return told

    def acknowledge(self, site: str, server_round: int, version: int) -> None:
        """Note that a site's update was aggregated, so it will commit the state behind it."""
        self.lost.discard(site)
        self.held[site] = Held(server_round, version)
