"""Frames and messages: all that travels between server and clients."""
