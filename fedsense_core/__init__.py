"""FedSense: one remote-sensing foundation model from many institutions that share no imagery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsense_core.encoder import load_encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Import torch and timm only when ``load_encoder`` is asked for: the command line stays
    quick."""
    if name == "load_encoder":
        from fedsense_core.encoder import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
