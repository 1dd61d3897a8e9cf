"""Codecs turn a flat update into few bytes and back."""
