"""Self-supervised recipes."""
