"""What a run shows: its folder, its rounds in the terminal, its report."""

from fedsense_core.reporting.run_folder import Metrics, RunFolder

__all__ = ["Metrics", "RunFolder"]
