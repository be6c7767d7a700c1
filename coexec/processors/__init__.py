"""Processors: each a folder behind the protocol of ``coexec.core.processor``; ``find`` opens them."""
