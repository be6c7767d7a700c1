"""One scheduler per file: each a pure function of the time, the queue and the processors."""
