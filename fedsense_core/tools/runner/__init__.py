"""Runs federations on this machine."""
