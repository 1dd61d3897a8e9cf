"""Server-to-clients guidance, as a client follows it: one file for each choice (docs/method.md,
section 4)."""
