"""What is trained: a timm encoder and the heads that self-supervision puts on it."""
