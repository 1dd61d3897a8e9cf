"""Self-supervised recipes: each maps a batch to a loss of the model and its alignment to the
universal encoder."""
