"""The settings of a run, read back from its folder."""

from __future__ import annotations

from pydantic import ValidationError

from fedsense_core.config import Config
from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.folder import RunFolder


def settings_of(run: RunFolder) -> Config:
    """Return the settings that ``run`` was started with. Raises CheckpointError where another
    release wrote them."""
    try:
        return Config.model_validate(run.read_config())
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise CheckpointError(
            f"{run.config_file} holds settings that this release does not know ({wrong}): use the release that made "
            "the run."
        ) from None
