"""What operators mean: one OpDef each (shape rule, reference, gradient, work, tolerance, examples)."""
