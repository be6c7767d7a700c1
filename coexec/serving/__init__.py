"""Several models at once and streams of inputs: requests, schedulers, and what they lead to."""
