"""How flat the global model is, and how far the clients' models are from it."""

from fedsense_core.analysis.analyse import analyse_run
from fedsense_core.analysis.kept import KeptModels, keep_models
from fedsense_core.analysis.options import AnalysisOptions

__all__ = ["AnalysisOptions", "KeptModels", "analyse_run", "keep_models"]
