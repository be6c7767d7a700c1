"""NumPy through the references of the OpDefs: the oracle, and the fallback that is reported."""
