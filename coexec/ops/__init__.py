"""What operators mean: one OpDef each, with shape rule, reference, gradient, work, examples."""
