"""What a doctor finds: a subject, whether it is well, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder.formatting import clean

Level = Literal["ok", "warning", "failure"]
COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "failure": "red"}


@dataclass(frozen=True)
class Finding:
    """What was found about one subject."""

    level: Level
    subject: str
    said: str
    """What it is, and what to do unless it is well."""


class Doubt(FedSenseError):
    """Something that works, but should not stay as it is."""


def found(subject: str, look: Callable[[], str]) -> Finding:
    """Return what ``look`` says is well, or what it raises: a Doubt is a warning, any other error
    of ours or of the system a failure."""
    try:
        return Finding("ok", subject, look())
    except Doubt as error:
        return Finding("warning", subject, str(error))
    except (FedSenseError, OSError) as error:
        return Finding("failure", subject, str(error))


def has_failed(findings: Sequence[Finding]) -> bool:
    """Return whether something is wrong."""
    return any(finding.level == "failure" for finding in findings)


def describe(findings: Sequence[Finding]) -> RenderableType:
    """Return a page for a terminal: one row a finding, and how many of which kind."""
    columns = (Column(no_wrap=True, min_width=7), Column(no_wrap=True), Column(overflow="fold"))
    table = Table(*columns, box=None, pad_edge=False, show_header=False)
    for finding in findings:
        colour = COLOURS[finding.level]
        said = Text(clean(finding.said), "" if finding.level == "ok" else colour)
        table.add_row(Text(finding.level, f"bold {colour}"), clean(finding.subject), said)
    counts = {level: sum(finding.level == level for finding in findings) for level in COLOURS}
    last = Text("", end="")
    for level, count in counts.items():
        last.append(f"{', ' if last else ''}{count} {level}{'s' if count != 1 and level != 'ok' else ''}")
    return Group(table, "", last)
