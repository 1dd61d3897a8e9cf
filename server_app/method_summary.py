"""The switches that make up a run's method, as lines for its log."""

from __future__ import annotations

from collections.abc import Iterator
from logging import INFO, WARNING

from fedsense_core.codecs.codec import Codec, codec_class, codec_of
from fedsense_core.codecs.kernels import launch
from fedsense_core.config import Config


def summary_lines(config: Config, parameters: int) -> Iterator[tuple[int, str]]:
    """Yield level and text of each line; ``parameters`` is N."""
    radius = f", r = {config.guidance.radius:g}" if config.guidance.kind != "none" else ""
    inner = "" if config.train.optimiser == "adamw" else f", inner optimiser {config.train.optimiser}"
    recipe = config.train.recipe + (" with federated SIGReg" if config.train.federated_sigreg else "")
    up, down = codec_of(config.uplink), codec_of(config.downlink)
    yield INFO, f"├── preset {config.preset}, recipe {recipe}{inner}"
    yield INFO, f"├── {config.model.architecture}: {parameters:,} parameters travel"
    yield INFO, f"├── guidance: {config.guidance.kind}{radius}; alignment: {config.alignment_weight:g}"
    yield INFO, f"├── up: {_codec_text(up)} {_feedback_text(config)}, down: {_codec_text(down)}"
    if (up.slow_without_numba or down.slow_without_numba) and not launch.is_available():
        yield WARNING, "├── numba is not installed: the trellis search takes twenty times as long without it"
    if config.personalisation.kind != "none":
        yield INFO, f"├── personalisation: {config.personalisation.kind}"
    rule = "" if config.aggregation.kind == "mean" else f"aggregation: {config.aggregation.kind}; "
    if config.aggregation.counts_chips:
        rule = f"aggregation: mean by {config.aggregation.weights}; "
    yield INFO, f"└── {rule}outer: {config.outer.kind}; distillation: {config.distillation.kind}"


def _feedback_text(config: Config) -> str:
    clip = f", clipped to {config.uplink.clip:g}" if config.uplink.clip else ""
    if config.feedback_in_use:
        return "with error feedback" + (" and prediction" if config.prediction_in_use else "") + clip
    text = "without error feedback" + (", with prediction" if config.prediction_in_use else "")
    if config.uplink.feedback and not config.sends_models:
        share, codec = config.federation.participation, config.uplink.codec
        why = f"federation.participation {share:g} is below a half"
        if share >= 0.5:
            why = f"the residual of {codec} would grow without end"
        if config.aggregation.kind == "none":
            why = "without aggregation rounds do not add up"
        scale = "unbiased scale" if codec_class(codec).has_unbiased_scale else "nothing else changes"
        text += f" ({why}: {scale}, no residual)"
    return text + clip


def _codec_text(codec: Codec) -> str:
    return f"{codec.name} at {codec.bits} bit{', water-filling' if codec.waterfill else ''}"
