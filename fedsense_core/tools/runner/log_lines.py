"""Flower's log stream as a person wants to read it: what happens in the run, without what Flower
says about itself."""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*:\s*")
NOISE = re.compile(
    r"Using SuperLink|Successfully (started run|installed fedsense)|Starting (Flower Simulation|logstream for run)"
    r"|Manually terminating ClientAppActor"
    r"|Since flwr 1\.32|Federation `|To change federation size|flwr federation simulation-config"
    r"|FutureWarning: Tip: In future versions of Ray|^\s*warnings\.warn\(|FedSense stopped:|^run folder: |^\s*$"
)
DUMP = re.compile(r"Simulation raised an exception|^Traceback \(most recent call last\)|Exit Code: \d+")
"""Begins Flower's account of a failed run. Its reason comes from the run's status instead, in one
line."""


class LogLines:
    """Cleans one stream, line by line."""

    def __init__(self) -> None:
        self.in_dump = False

    def tidy(self, line: str) -> str | None:
        """Return what to show of a line, or None."""
        line = COLOUR.sub("", line.rstrip("\n"))
        level = LEVEL.match(line)
        text = (line[level.end() :] if level else line).replace("\t", "  ")
        if DUMP.search(text):
            self.in_dump = True
        elif level and level[1] in ("INFO", "WARNING"):
            self.in_dump = False
        if self.in_dump or NOISE.search(text):
            return None
        return f"{level[1].lower()}: {text}" if level and level[1] != "INFO" else text
