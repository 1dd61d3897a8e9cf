"""What the server does with the aggregated update: one file for each choice."""
