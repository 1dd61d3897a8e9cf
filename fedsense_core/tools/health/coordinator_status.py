"""``fedsense status coordinator``: who is admitted and connected, and how far the run is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.formatting import clean, human_bytes, human_seconds
from fedsense_core.tools.deployment.control import Member, connect
from fedsense_core.tools.deployment.control import RunState as FlowerRun
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.health.run_state import RunState, Share
from fedsense_core.tools.onboarding.wording import count

PHASE_COLOURS = {"finished": "green", "stopped": "red", "dead": "red", "unknown": "yellow"}


@dataclass(frozen=True)
class CoordinatorStatus:
    """All that is known at one moment."""

    members: Sequence[Member]
    """Who was admitted; empty where the SuperLink does not answer."""
    superlink: str
    """Why the SuperLink does not answer; empty where it does."""
    flower_run: FlowerRun | None
    """The run that Flower knows of this folder."""
    run: RunState | None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "superlink": self.superlink or "answers",
            "members": [vars(member) for member in self.members],
            "flower_run": vars(self.flower_run) if self.flower_run else None,
            "run": self.run.as_dict() if self.run else None,
        }

    @property
    def is_well(self) -> bool:
        """Whether the SuperLink answers, and the run goes on or has ended as it should."""
        return not self.superlink and (self.run is None or self.run.phase not in ("stopped", "dead"))


def coordinator_status(folder: CoordinatorFolder, run: Path | None) -> CoordinatorStatus:
    """Look at a coordinator and at one run, or at its newest. Raises CheckpointError where there is
    no such run."""
    members: list[Member] = []
    runs: list[FlowerRun] = []
    silent = ""
    try:
        with connect(folder) as control:
            members, runs = control.members(), control.runs()
    except DeploymentError as error:
        silent = str(error)
    path = run or next((Path(one.folder) for one in runs if one.folder), None) or _newest(folder.runs)
    state = None
    if path is not None and (run is not None or RunFolder.exists(path)):
        state = RunState.of(path)
    known = next((one for one in runs if path is not None and one.folder == str(path)), None)
    return CoordinatorStatus(members, silent, known, state)


def _newest(runs: Path) -> Path | None:
    found = sorted(runs.glob("*/config.json"), key=lambda file: file.stat().st_mtime)
    return found[-1].parent if found else None


def describe(status: CoordinatorStatus, now: datetime | None = None) -> RenderableType:
    """Return a page for a terminal."""
    parts: list[RenderableType] = []
    if status.superlink:
        parts.append(Text(status.superlink, "red"))
    parts += list(_run_lines(status, now or datetime.now(UTC)))
    table = _table(status, now or datetime.now(UTC))
    if table.row_count:
        parts += ["", table]
    return Group(*parts)


def _run_lines(status: CoordinatorStatus, now: datetime) -> Iterator[RenderableType]:
    state = status.run
    if state is None:
        yield Text("no run yet: `fedsense coordinator run` starts one")
        return
    yield Text.assemble("run ", (clean(str(state.folder)), "bold"))
    current = state.now.get("round", state.rounds_done) if state.phase != "finished" else state.rounds_done
    said = Text.assemble(f"round {current} of {state.rounds} · ", (state.phase, PHASE_COLOURS.get(state.phase, "cyan")))
    late = state.late(now)
    if late:
        since = human_seconds(next(iter(late.values())))
        answered = len(state.now.get("asked", ())) - len(late)
        said.append(f" for {since} · {answered} answered, waiting for {', '.join(map(clean, late))}")
    elif state.phase == "waiting for institutions":
        said.append(f" · {len(state.now.get('connected', ()))} here, {state.now.get('least')} needed")
    yield said
    if state.reason:
        yield Text(clean(state.reason), "red", overflow="fold")
    if status.flower_run is not None:
        details = f": {clean(status.flower_run.details)}" if status.flower_run.details else ""
        yield Text(f"Flower's run {status.flower_run.run_id} · {status.flower_run.status}{details}")
    sizes = f"{human_bytes(state.bytes_up)} up, {human_bytes(state.bytes_down)} down"
    yield Text(f"so far · {count(state.rounds_done, 'round')}, {sizes}")


def _table(status: CoordinatorStatus, now: datetime) -> Table:
    state = status.run
    members = {member.name: member for member in status.members}
    names = sorted({*members, *(state.institutions if state else ())})
    refused = {one["node"]: one["reason"] for one in state.now.get("refused", ())} if state else {}
    late = state.late(now) if state else {}
    columns = (
        Column("institution", no_wrap=True),
        Column("SuperNode", no_wrap=True),
        Column("rounds", justify="right"),
    )
    table = Table(*columns, Column("last verdict", overflow="fold"), box=None, pad_edge=False, header_style="dim")
    for name in sorted({*names, *refused}):
        rounds = len(state.counted.get(name, ())) if state else 0
        here = _here(members.get(name), now) if status.members else _connected(state, name)
        table.add_row(clean(name), here, str(rounds), _verdict(state, name, refused, late))
    return table


def _here(member: Member | None, now: datetime) -> Text:
    if member is None:
        return Text("not admitted", "yellow")
    since = f" {human_seconds((now - datetime.fromisoformat(member.since)).total_seconds())}" if member.since else ""
    if member.status == "registered":
        return Text("never came", "yellow")
    return Text(f"{member.status}{since}", "green" if member.status == "online" else "red")


def _connected(state: RunState | None, name: str) -> Text:
    return Text("connected" if state and name in state.now.get("connected", ()) else "?")


def _verdict(state: RunState | None, name: str, refused: dict[str, str], late: dict[str, float]) -> Text:
    if name in refused:
        return Text(f"cannot take part: {clean(refused[name])}", "red")
    said = Text()
    if name in late:
        said.append(f"at work for {human_seconds(late[name])}; ", "cyan")
    verdict = state.verdicts.get(name) if state else None
    if verdict is None:
        return said.append("none yet")
    if verdict.counted:
        return said.append(f"round {verdict.round}: counted", "green").append(
            f", {clean(verdict.reason)}" if verdict.reason else "", "yellow"
        )
    return said.append(f"round {verdict.round}: left out: {clean(verdict.reason)}", "red")


def describe_share(share: Share, state: RunState) -> RenderableType:
    """Return a page about the rounds of one institution, and how to go on without them."""
    if not share.counted and not share.left_out:
        known = ", ".join(map(clean, state.institutions)) or "nobody"
        raise CheckpointError(f"{state.folder}: {share.name!r} was in no round of this run; {known} was.")
    rounds = f"{count(len(share.counted), 'round')}: {ranges(share.counted)}" if share.counted else "no round"
    lines = [Text(f"{clean(share.name)} counts in {rounds}")]
    for number, reason in share.left_out.items():
        lines.append(Text(f"  round {number}: left out: {clean(reason)}", "yellow", overflow="fold"))
    if not share.counted:
        return Group(*lines)
    if share.kept_before:
        before = share.kept_before[-1]
        lines += [
            Text(f"A run that never knew it goes on from round {before}, whose checkpoint is kept:"),
            Text(
                f"  fedsense coordinator run run.continued_from={state.folder} run.rounds_before={before} "
                f"run.rounds={state.rounds} run.folder=NEW ..."
            ),
        ]
    else:
        lines.append(
            Text(
                "No checkpoint of a round before is kept"
                + (" (it was there from round 1)" if share.counted[0] == 1 else "")
                + ": a run that never knew it begins anew."
            )
        )
    return Group(*lines)


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers with runs joined: "1 to 4, 7"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in found)
