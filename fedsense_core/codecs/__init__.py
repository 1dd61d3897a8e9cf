"""Codecs turn a flat update into few bytes and back. ``codec.py`` says what one is and finds it by
name; ``eden.py`` is the one to read first."""

# First of all: the tree of settings holds this room's ``CodecSection``. Without this line,
# importing ``settings`` before ``fedsense_core.config`` would run in a circle. Neither needs torch.
import fedsense_core.config  # noqa: F401
