"""Lowering a placed graph to a program, and executing programs."""
