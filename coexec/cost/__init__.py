"""What a node costs on a processor: measured, else fitted, else roofline; it says which."""
