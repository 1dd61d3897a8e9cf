"""What a run shows: its folder, its rounds in the terminal, its report.

``report``, ``plots`` and ``pictures`` are imported where they are used: matplotlib and torch take seconds to load.
"""

from fedsense_core.reporting.console import RoundPrinter, describe_round
from fedsense_core.reporting.run_folder import Metrics, RunFolder

__all__ = ["Metrics", "RoundPrinter", "RunFolder", "describe_round"]
