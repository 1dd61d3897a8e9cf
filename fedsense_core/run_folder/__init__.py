"""What a run leaves on disk, and where."""

from fedsense_core.run_folder.folder import Metrics, RunFolder

__all__ = ["Metrics", "RunFolder"]
