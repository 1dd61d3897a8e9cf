"""What rules have in common that bear some attackers among the clients."""

from __future__ import annotations

from server_app.aggregation.mean import Mean


class RobustRule(Mean):
    """Its centre stands for the mean in all that is measured of a round, too: the mean could be
    anywhere."""

    centre_is_mean = False

    @property
    def attackers(self) -> int:
        """f, how many of a round's clients may be attackers."""
        return self.config.aggregation.byzantine

    def check(self, clients: int) -> None:
        """Raise ValueError for fewer clients than the rule needs; `Config` asks that a quorum has
        them."""
        least = self.config.aggregation.least_clients
        if clients < least:
            raise ValueError(
                f"aggregation.kind = {self.name!r} with aggregation.byzantine = {self.attackers} needs {least} "
                f"clients, not {clients}"
            )
