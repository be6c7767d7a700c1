"""Verdicts and pictures from a trace."""
