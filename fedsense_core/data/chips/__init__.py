"""Chips: how they are made, stored and standardised, and their statistics."""
