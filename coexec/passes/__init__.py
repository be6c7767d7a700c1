"""Graph transformations: one file each, strung together in ``pipeline``."""
