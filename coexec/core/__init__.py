"""The nouns (types, calls, regions, programs, events) and the processor protocol."""
