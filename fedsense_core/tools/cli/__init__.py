"""The command line: ``fedsense run`` and what belongs to it."""

from fedsense_core.tools.cli.commands import app

__all__ = ["app"]
