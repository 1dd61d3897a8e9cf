"""The agreed app: built to the same bytes everywhere, signed offline, and started by its digest."""
