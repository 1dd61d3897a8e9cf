"""How flat the global model is, and how far the clients' models are from it."""

from fedsense_core.tools.analysis.analyse import analyse_run
from fedsense_core.tools.analysis.analysis_options import AnalysisOptions

__all__ = ["AnalysisOptions", "analyse_run"]
