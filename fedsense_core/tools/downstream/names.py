"""The names that settings and results use; importing them imports nothing else."""

from collections.abc import Mapping
from typing import Literal

TaskName = Literal["classification", "segmentation", "detection", "change"]
"""Each is a `DownstreamTask` in the module of its name; see `tasks`."""
Mode = Literal["frozen", "fine-tuned"]
"""Whether the encoder stays as it is or learns together with the head."""
Heads = Mapping[Mode, tuple[str, ...]]
"""Names of the heads that a task has in each mode."""
