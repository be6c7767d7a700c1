"""Training: the trainer, its loop, data, checkpoints, and which parameters to train."""
