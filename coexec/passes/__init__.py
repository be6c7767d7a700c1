"""Graph transformations: one file each; what prepares a graph for its use says their order."""
