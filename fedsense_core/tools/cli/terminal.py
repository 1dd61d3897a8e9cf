"""What all commands share: the two streams, and how a command ends that cannot start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedsense_core.errors import FedSenseError

# no emoji: ":AB:" in a fingerprint is no picture
console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(highlight=False, soft_wrap=True, emoji=False, stderr=True)

CANNOT_START, FAILED = 2, 1


class Step(Protocol):
    """Is told how far a long piece of work is."""

    def __call__(self, done: int, total: int, chips: int = 0) -> None:
        """Take what is done, how much there is, and the chips so far."""


@contextmanager
def clear_errors(status: int = CANNOT_START) -> Iterator[None]:
    """End with ``status`` and one readable line where something is wrong: 2 before a run starts."""
    try:
        yield
    except FedSenseError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}")
        raise typer.Exit(status) from None


def warn(text: str) -> None:
    """Show on stderr what a command could not do beside its work."""
    errors.print(f"[yellow]{escape(text)}[/yellow]")


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Step]:
    """Yield a function that draws a bar on stderr, if that is a terminal."""
    columns = (TextColumn(title), BarColumn(24), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(title, total=None)

        def step(done: int, total: int, chips: int = 0) -> None:
            progress.update(task, completed=done, total=total)

        yield step
