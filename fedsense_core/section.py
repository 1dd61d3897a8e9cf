"""What every group of settings is: strict, frozen, each field with its sentence below it."""

# Outside `fedsense_core.config`, which imports the settings that stand beside implementations:
# those could not import it back.

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A strict, frozen group of settings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
