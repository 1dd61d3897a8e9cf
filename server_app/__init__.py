"""The coordinator's side: the custom Strategy and what it needs."""
