"""The learning rate over the global steps of a run: clients and the distilling server follow one
schedule."""

from __future__ import annotations

import math

from fedsense_core.config import Config


def learning_rate(config: Config, step: int) -> float:
    """Return the rate at a global step: linear warm-up, then a cosine to zero over all steps of the
    run.

    A run that goes on from a finished one begins a schedule of its own, a warm restart (Loshchilov
    and Hutter 2017, arXiv 1608.03983): the old one has ended at zero.
    """
    step, total = step - config.steps_before, config.total_steps
    warmup = max(1, round(config.train.warmup * total))
    rise = min(1.0, (step + 1) / warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0, step - warmup) / max(1, total - warmup))))
    return config.train.learning_rate * rise * fall
