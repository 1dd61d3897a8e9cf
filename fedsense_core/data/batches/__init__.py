"""Batches of chips, and views of them."""
