"""coexec beside its peers: the same work, in turns, in one run (see ``docs/benchmarks.md``).

The coordinator runs where coexec is installed. Every peer is a worker process of its own, in an
environment of its own, that speaks JSON lines (``protocol.py``); workers need not have coexec.
"""
