"""A deployment over a network: what ``fedsense coordinator`` and ``fedsense institution`` do."""
