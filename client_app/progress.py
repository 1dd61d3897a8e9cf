"""What a SuperNode's log says while an archive is cut into chips, which may take hours the first
time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import INFO

from flwr.common.logger import log

EVERY_S = 10.0
"""Between two lines: short archives say nothing."""


@dataclass
class ChippingLog:
    """Called after every scene; see `fedsense_core.data.chips.chipping.Progress`."""

    site: str
    check: Callable[[], None] = lambda: None
    """Called after every scene, whatever is said: may stop the cutting."""
    last: float = field(default_factory=time.monotonic)
    """When something was said last, or the cutting began."""

    def __call__(self, done: int, scenes: int, chips: int) -> None:
        """Say how far it is, if it is time."""
        self.check()
        if time.monotonic() - self.last >= EVERY_S:
            self.last = time.monotonic()
            log(INFO, "site %s: chips are cut: %d of %d scenes, %d chips so far", self.site, done, scenes, chips)
