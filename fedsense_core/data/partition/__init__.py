"""Studies in simulation: how imagery is shared out among clients."""
