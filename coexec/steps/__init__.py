"""What a training step is made of: its graphs, its resident states, its gate."""
