"""The side channel of federated SIGReg: sums of embeddings up, the offset of the mixture down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsense_core.config import Config
from fedsense_core.protocol.side_channels import Attachments, SideChannel
from fedsense_core.ssl.federated import SUMS, judge_sums, reply_limits, sums_from_state, sums_state, task_attachments
from fedsense_core.ssl.sigreg import SigregStatistics
from fedsense_core.state import State


class EmbeddingSums(SideChannel):
    """Open where ``train.federated_sigreg`` is on (`fedsense_core.ssl.federated`)."""

    name = SUMS
    carried_by = "round"

    def __init__(self, config: Config) -> None:
        self.train = config.train
        self.limit = reply_limits(config.train)[SUMS]
        self.sums: dict[str, SigregStatistics] = {}
        """Over the last round's embeddings, by site: the next round's directions name them, and no
        later one's."""

    def for_task(self, site: str) -> Attachments:
        """Return how far all embeddings of the last round were from the site's own."""
        return task_attachments(self.sums, site)

    def judge(self, attachment: bytes, examples: float) -> SigregStatistics | None:
        """Read the sums of a reply: of all views that its examples have, and no larger than
        that."""
        return judge_sums(self.train, {SUMS: attachment}, examples)

    def accept(self, judged: Mapping[str, Any]) -> None:
        """Take the sums of the replies that count."""
        self.sums = dict(judged)

    def skip_round(self) -> None:
        """Forget sums along directions that no round to come looks along."""
        self.sums = {}

    def state_dict(self) -> State:
        """Return the sums by site."""
        return sums_state(self.sums)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of a checkpoint."""
        self.sums = sums_from_state(state)
