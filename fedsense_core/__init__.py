"""FedSense: one remote-sensing foundation model from many institutions that share no imagery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsense_core.encoder import load_encoder
    from fedsense_core.tools.api import evaluate, run

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_encoder", "run"]

_MODULES = {
    "load_encoder": "fedsense_core.encoder",
    # Not in the bundle that Flower sends to the nodes, where nobody asks for them.
    "evaluate": "fedsense_core.tools.api",
    "run": "fedsense_core.tools.api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and torch and timm only then: the command line stays quick."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
