"""What happens around the rounds of a run, each in a file of its own."""
