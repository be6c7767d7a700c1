"""Knobs, errors, units and disk access: what every layer may use."""
