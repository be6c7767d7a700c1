"""Kernel families: one ``.py`` declaration and one ``.cl`` source of the same stem each."""
