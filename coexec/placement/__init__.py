"""Policies: pure functions from a graph and processors to a plan."""
