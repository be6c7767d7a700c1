"""Event simulation of a phone: shared memory bandwidth, frequencies, heat, load and energy."""
