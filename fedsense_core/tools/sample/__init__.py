"""Scripts that make the shipped sample."""
