"""Processors: each a folder behind the protocol of ``core.processor``; ``find`` opens them."""
