"""Codecs turn a flat update into few bytes and back. ``codec.py`` says what one is and finds it by
name; ``eden.py`` is the one to read first."""
