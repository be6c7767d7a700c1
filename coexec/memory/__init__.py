"""Memory of a training step as arithmetic: what lives when, and what to recompute to fit it."""
