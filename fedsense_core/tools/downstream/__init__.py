"""Downstream tasks: what an encoder is good for, frozen and fine-tuned."""

from fedsense_core.tools.downstream.evidence import ConfusionEvidence, DetectionEvidence, Evidence
from fedsense_core.tools.downstream.result import TaskResult, load_results, save_results

__all__ = [
    "ConfusionEvidence",
    "DetectionEvidence",
    "Evidence",
    "TaskResult",
    "load_results",
    "save_results",
]
