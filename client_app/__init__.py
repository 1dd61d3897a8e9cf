"""The institution's side: local self-supervised training under guidance."""
