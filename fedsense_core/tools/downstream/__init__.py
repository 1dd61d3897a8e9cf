"""Downstream tasks: what an encoder is good for, frozen and fine-tuned."""
