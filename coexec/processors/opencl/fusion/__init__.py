"""Fusion: what the OpenCL compiler makes of a region before it chooses kernels for its nodes."""
