"""What a client sends back, stage by stage."""
