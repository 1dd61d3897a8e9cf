"""Clients-to-server guidance on public imagery."""
