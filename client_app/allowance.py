"""What an institution's policy leaves to one message: read before any work, watched until the
answer.

A run that asks too much, and work that takes too much, end with a PolicyError, which becomes the
reason in the answer. Nothing that the server sends is asked about it: the policy's place is in the
SuperNode's own configuration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from flwr.app import Context

from client_app.work_note import WorkNote
from fedsense_core.config import Config
from fedsense_core.device import chosen_device
from fedsense_core.errors import PolicyError
from fedsense_core.policy import FILE, Policy, breaches, read_policy
from fedsense_core.policy.footprint import Footprint, folder_size
from fedsense_core.policy.memory import limited_memory, machine_memory, resident_memory
from fedsense_core.protocol.messages import TrainTask

DISK_LOOK_S = 5.0
"""Between two looks at a folder's size, while chips are cut."""
GB = 10**9
AUTO_SHARE = 0.8
"""Of the machine's memory, with ``memory_gb = "auto"``."""

T = TypeVar("T")


def state_root(context: Context) -> Path:
    """Return the folder of all state of this institution, whatever its site's name."""
    return Path(str(context.node_config.get("state-dir", Path.home() / ".fedsense" / "state"))).expanduser()


def policy_of(context: Context) -> Policy | None:
    """Return the policy of this SuperNode: that of ``policy`` in its node configuration, or of the
    file beside its state, or the defaults.

    None in a simulation that names no policy: there nobody works for another. Raises PolicyError
    for a file that cannot be read.
    """
    node = context.node_config
    if "policy" in node:
        return read_policy(Path(str(node["policy"])).expanduser())
    if "site" not in node:
        return None
    path = state_root(context) / FILE
    return read_policy(path) if path.is_symlink() or path.exists() else Policy()


@dataclass
class Allowance:
    """How much of it is left."""

    policy: Policy = field(default_factory=Policy)
    minutes: float = math.inf
    """Of this message."""
    what: str = "this work"
    """What they are for, and the key that sets them."""
    memory: float = math.inf
    """Bytes of main memory."""
    disk: float = math.inf
    """Bytes of the site's whole state."""
    slot: int = 0
    """Bytes that a round adds to it, before the one before last is removed."""
    note: WorkNote | None = None
    """What tells the institution's watcher of this work; none in a simulation."""
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    looked: float = field(init=False, default=-math.inf)
    """When the disk was looked at last."""

    def __post_init__(self) -> None:
        self.began = self.clock()

    def check(self) -> None:
        """Raise PolicyError where the time is over, memory has run out, or the work was called
        off."""
        if self.clock() - self.began > 60 * self.minutes:
            raise PolicyError(f"stopped after {self.minutes:g} minutes, which is all that its policy gives {self.what}")
        if self.note and self.note.called_off:
            raise PolicyError("stopped: the run has ended, or the institution called the work off")
        if (resident := resident_memory()) > self.memory:
            raise PolicyError(
                f"stopped at {resident / GB:.1f} GB of memory, its policy allows {self.memory / GB:.1f} GB "
                "(limits.memory_gb)"
            )

    def over(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield what trains the model, as long as there is time."""
        for batch in batches:
            self.check()
            yield batch

    def check_disk(self, folder: Path) -> None:
        """Raise PolicyError where a site's state would take more disk than allowed."""
        if self.disk < math.inf and (takes := folder_size(folder) + self.slot) > self.disk:
            raise PolicyError(
                f"its state would take {takes / GB:.3g} GB of disk, its policy allows {self.disk / GB:.3g} GB "
                "(limits.disk_gb). Chips for other bands or sizes stay until the institution deletes them"
            )

    def check_cutting(self, folder: Path) -> None:
        """Do both, the second now and then."""
        self.check()
        if (now := self.clock()) - self.looked > DISK_LOOK_S:
            self.looked = now
            self.check_disk(folder)


@contextmanager
def allowed(context: Context, config: Config, site: str, task: TrainTask | None = None) -> Iterator[Allowance]:
    """Yield what this institution allows a round's task, or the handshake before there is one.

    Raises PolicyError, with every
    reason, where the settings break the policy; nothing has been built or read then.
    """
    policy = policy_of(context)
    if policy is None:
        yield Allowance()
        return
    if broken := breaches(policy, config, task.clients if task else None):
        raise PolicyError("its policy does not allow this run: " + "; ".join(broken))
    limits, device = policy.limits, chosen_device()
    memory = int(AUTO_SHARE * machine_memory() if limits.memory_gb == "auto" else limits.memory_gb * GB)
    takes = Footprint.of(config, device)
    if too_much := _too_much(takes, policy, memory):
        raise PolicyError(f"its policy does not allow this run: {too_much}")
    minutes, what = (
        (limits.minutes, "a round (limits.minutes)")
        if task
        else (limits.preparing_minutes, "what comes before the first round (limits.preparing_minutes)")
    )
    doing = f"round {task.round}" if task else "handshake"
    with (
        WorkNote.written(context, state_root(context), site, doing, minutes) as note,
        limited_memory(memory if note and device.type == "cpu" else 0),
    ):
        yield Allowance(policy, minutes, what, memory, limits.disk_gb * GB, takes.disk // 2, note)


def _too_much(takes: Footprint, policy: Policy, memory: int) -> str:
    """Say what of a model's footprint is more than allowed; empty if nothing is."""
    limits = policy.limits
    if takes.parameters > limits.parameters:
        return (
            f"the model has {takes.parameters} parameters, at most {limits.parameters} are allowed (limits.parameters)"
        )
    if takes.memory > memory:
        return (
            f"a round would take at least {takes.memory / GB:.3g} GB of memory, {memory / GB:.3g} GB are allowed "
            "(limits.memory_gb)"
        )
    if takes.disk > limits.disk_gb * GB:
        return (
            f"what is kept between rounds would take {takes.disk / GB:.3g} GB of disk, {limits.disk_gb:g} GB are "
            "allowed (limits.disk_gb)"
        )
    return ""
