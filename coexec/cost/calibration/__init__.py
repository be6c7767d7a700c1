"""Fits the factors of :mod:`coexec.cost.soc` to measurements of phones, and judges them."""
