"""The recipes by name, and the settings of each: keys of ``[train]``.

A new recipe is a class in a file of its own and its name here, with a section where it has settings
of its own. Nothing here imports torch, so that settings are read and listed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fedsense_core.section import Section

if TYPE_CHECKING:
    from fedsense_core.ssl.recipe import Recipe

RecipeName = Literal["simclr", "byol", "mae", "lejepa"]


class RecipeChoice(Section):
    """Which recipe."""

    recipe: RecipeName = "simclr"
    """Self-supervised loss."""

    @property
    def traits(self) -> type[Recipe]:
        """The recipe's class, whose attributes say what it needs of the model and of a client."""
        from fedsense_core.ssl.recipe import recipe_class  # here, because it imports torch

        return recipe_class(self.recipe)


class SimclrSettings(Section):
    """Settings of simclr."""

    temperature: float = Field(0.1, gt=0, le=1000)
    """Temperature of the contrastive loss, and of the relations of FedX."""


class ByolSettings(Section):
    """Settings of byol."""

    teacher_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average that is the teacher (byol)."""


class LejepaSettings(Section):
    """Settings of lejepa."""

    views: int = Field(4, ge=2, le=64)
    """Views of each chip (lejepa)."""
    sigreg_weight: float = Field(0.02, ge=0, le=1)
    """λ: weight of the Gaussian regulariser; that of equal views is 1 - λ (lejepa)."""
    sigreg_directions: int = Field(256, ge=1, le=65_536)
    """Random directions on which the regulariser projects embeddings (lejepa): new ones in each
    step, in each round if it is federated."""
    federated_sigreg: bool = False
    """Make the mixture of all clients' embeddings Gaussian, not each client's own (lejepa). Clients
    then send sums over what they trained on and get how far all were from them, 136 bytes a
    direction each way."""


class MaeSettings(Section):
    """Settings of mae."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of patches hidden from the encoder (mae)."""


# pydantic lists the fields of the last base first.
class RecipeSettings(MaeSettings, LejepaSettings, ByolSettings, SimclrSettings, RecipeChoice):
    """The recipe, and the settings of each."""
