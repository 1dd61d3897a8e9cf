"""Codecs turn a flat update into few bytes and back."""

from fedsense_core.codecs.registry import CODECS, Codec, codec_by_id, codec_of, get_codec

__all__ = ["CODECS", "Codec", "codec_by_id", "codec_of", "get_codec"]
