"""Self-supervised recipes: each maps a batch to a loss of the model and its alignment to the
universal encoder."""

from fedsense_core.ssl.recipe import Recipe, StepLoss, build_recipe
from fedsense_core.ssl.teacher import MovingTeacher

__all__ = ["MovingTeacher", "Recipe", "StepLoss", "build_recipe"]
