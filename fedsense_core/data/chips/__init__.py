"""Chips, where they are kept, and their statistics."""
