"""What is trained: a timm encoder and the heads that self-supervision puts on it."""

from fedsense_core.models.bands import encoder_for, read_bands
from fedsense_core.models.pretraining import PretrainingModel, build_encoder, build_model, encoder_args

__all__ = ["PretrainingModel", "build_encoder", "build_model", "encoder_args", "encoder_for", "read_bands"]
