"""What a run leaves on disk, and where."""

from fedsense_core.run_folder.folder import Metrics, RunFolder
from fedsense_core.run_folder.settings import settings_of

__all__ = ["Metrics", "RunFolder", "settings_of"]
