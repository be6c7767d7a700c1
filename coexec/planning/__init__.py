"""Plans of models for the processors of this device: made, verified by running, made again."""
