"""How good an encoder is: nearest neighbours and a linear probe on labelled chips."""

from fedsense_core.evaluation.embedding import embed
from fedsense_core.evaluation.probe import ProbeScores, probe
from fedsense_core.evaluation.probes import knn_scores, linear_predictions, linear_scores
from fedsense_core.evaluation.scores import Scores, score

__all__ = [
    "ProbeScores",
    "Scores",
    "embed",
    "knn_scores",
    "linear_predictions",
    "linear_scores",
    "probe",
    "score",
]
