"""Tuning: searching the declared spaces of kernels, and keeping what was found as data."""
