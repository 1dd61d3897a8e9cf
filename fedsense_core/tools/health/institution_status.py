"""``fedsense status institution`` and ``fedsense audit``: what was asked here, what was sent, and
whether the log that says so holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fedsense_core.audit import FILE, AuditError, AuditLog, Entry, Verdict
from fedsense_core.run_folder.formatting import clean, human_bytes
from fedsense_core.tools.onboarding.wording import count

SHOWN = 8
"""Entries that are listed unless more are asked for."""
DIGITS = 12
"""Of a digest in a table; the log has it whole."""


@dataclass
class RunShare:
    """What one run asked of this institution, added up."""

    run: str
    asked: str = ""
    """The last task in words."""
    rounds: int = 0
    """Tasks."""
    sent: int = 0
    """Updates that left."""
    refused: int = 0
    counted: int = 0
    """Of the updates that left: what a later task told."""
    dropped: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    last: str = ""
    """Time of the last entry, ISO 8601."""

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        said, self.last = entry.said, entry.said["time"]
        self.bytes_up += int(said.get("bytes_up", 0))
        self.bytes_down += int(said.get("bytes_down", 0))
        self.sent += entry.event == "sent"
        self.refused += entry.event in ("refused", "failed") or bool(entry.event == "greeted" and said.get("reason"))
        if entry.event == "asked":
            self.rounds += 1
            verdict = said.get("last", {}).get("verdict")
            self.counted += verdict == "counted"
            self.dropped += verdict == "dropped"
            if "preset" in said:
                self.asked = asked_in_words(said)


@dataclass(frozen=True)
class InstitutionStatus:
    """A whole audit log, looked at."""

    verdict: Verdict
    runs: dict[str, RunShare] = field(default_factory=dict)
    """By run id, in order of appearance."""
    entries: list[Entry] = field(default_factory=list)
    """The last ones."""

    @property
    def is_well(self) -> bool:
        """Whether the whole log holds."""
        return not self.verdict.problem

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "log": vars(self.verdict),
            "runs": [vars(share) for share in self.runs.values()],
            "entries": [{"line": entry.number, **entry.said, "digest": entry.digest} for entry in self.entries],
        }


def log_file(path: Path) -> Path:
    """Return the log that ``path`` means: itself, or that of the institution's folder it is."""
    return path / FILE if path.is_dir() else path


def institution_status(path: Path, last: int = SHOWN) -> InstitutionStatus:
    """Read an audit log from its first line on. Raises AuditError where there is none."""
    log = AuditLog(log_file(path))
    runs: dict[str, RunShare] = {}
    entries: list[Entry] = []
    for entry in _those_that_hold(log):
        if run := entry.said.get("run"):
            runs.setdefault(run, RunShare(run)).add(entry)
        entries = [*entries, entry][-last:] if last else []
    return InstitutionStatus(log.verify(), runs, entries)


def _those_that_hold(log: AuditLog) -> Iterator[Entry]:
    entries = log.entries()
    while True:
        try:
            yield next(entries)
        except StopIteration:
            return
        except AuditError:
            if not log.path.is_file():
                raise
            return  # `verify` says which line it was


def holds(path: Path, digest: str) -> int:
    """Return the number of the line with a digest that was noted earlier. Raises AuditError where
    no line has it: the log was written anew since then."""
    for entry in AuditLog(log_file(path)).entries():
        if entry.digest.startswith(digest.lower()):
            return entry.number
    raise AuditError(
        f"{log_file(path)}: no line has the digest {digest}: what stood there when it was noted was changed or removed"
    )


def describe_verdict(path: Path, verdict: Verdict) -> RenderableType:
    """Return in words whether the log holds."""
    if verdict.problem:
        whole = f"{verdict.entries} lines before it hold" if verdict.entries else "no line before it holds"
        return Text(f"broken: {clean(verdict.problem)}. {whole}.", "red", overflow="fold")
    said = Text.assemble(("unbroken", "green"), f": {verdict.entries} lines of {clean(str(log_file(path)))}")
    if verdict.torn:
        text = f"\n{verdict.torn} bytes at the end are of a writer that was killed; the next one cuts them off"
        said.append(text, "yellow")
    return said.append(f"\nlast digest {verdict.digest}\nNoted elsewhere, it shows later that all this stood here.")


def describe(path: Path, status: InstitutionStatus) -> RenderableType:
    """Return a page for a terminal."""
    parts: list[RenderableType] = []
    for share in status.runs.values():
        parts.append(Text.assemble("run ", (share.run, "bold"), f" · last {_short(share.last)}"))
        facts = Table.grid(padding=(0, 2))
        if share.asked:
            facts.add_row("  asked", Text(clean(share.asked), overflow="fold"))
        told = f"{count(share.rounds, 'task')}, {count(share.sent, 'update')} sent, {share.refused} refused"
        if share.counted or share.dropped:
            told += f"; of the updates {share.counted} counted, {share.dropped} did not"
        facts.add_row("  so far", told)
        facts.add_row("  bytes", f"{human_bytes(share.bytes_up)} up, {human_bytes(share.bytes_down)} down")
        parts.append(facts)
    if status.entries:
        parts += ["", entries_table(status.entries), ""]
    return Group(*parts, describe_verdict(path, status.verdict))


def entries_table(entries: list[Entry]) -> Table:
    """Return one row an entry."""
    columns = (Column("time (UTC)", no_wrap=True), Column("round", justify="right"), Column("event", no_wrap=True))
    table = Table(*columns, Column("what", overflow="fold"), box=None, pad_edge=False, header_style="dim")
    for entry in entries:
        colour = {"sent": "green", "refused": "red", "failed": "red", "torn": "yellow"}.get(entry.event, "")
        row = Text(clean(_what(entry)), "red" if entry.said.get("reason") else "")
        table.add_row(_short(entry.said["time"]), str(entry.said.get("round", "")), Text(entry.event, colour), row)
    return table


def asked_in_words(said: dict[str, Any]) -> str:
    """Return a task's line in words."""
    bands = said["bands"] if isinstance(said["bands"], str) else ", ".join(said["bands"])
    words = f"{said['preset']}, {said['recipe']}, {said['local_steps']} steps of {said['batch_size']} chips"
    words += f", {said['codec']} at {said['bits']} bit, {said['model']} on {bands}"
    channels = [name for name in ("statistics", "sums") if said.get(f"{name}_asked")]
    return words + (f", and {' and '.join(channels)}" if channels else "")


def _what(entry: Entry) -> str:
    said = entry.said
    if reason := said.get("reason"):
        return str(reason)
    sent = f"{human_bytes(said.get('bytes_up', 0))} up"
    for name, channel in (said.get("channels") or {}).items():
        sent += f", {name} {channel['sha256'][:DIGITS]}"
    match entry.event:
        case "asked":
            last = said.get("last") or {}
            verdict = f", round {last['round']} {last['verdict']}" if "round" in last else ""
            return f"{human_bytes(said.get('bytes_down', 0))} down{verdict}"
        case "sent":
            return f"{sent}, frame {said['frame']['sha256'][:DIGITS]}"
        case "greeted":
            return f"{said.get('chips', 0)} chips, {sent}"
        case _:
            return str(said.get("note", ""))


def _short(time: str) -> str:
    return time[:19].replace("T", " ")
