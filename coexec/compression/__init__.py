"""Smaller models: techniques, and what they changed."""
