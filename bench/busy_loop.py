"""A busy loop in another process: a real load on some cores."""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Sequence

LOOP = """
import os, sys
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[2].split(",")})
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""
"""Ends with the process that started it, however that ends."""


class BusyLoop:
    """Computes nothing, on one of the CPUs named, until :meth:`end` or the end of this process.

    Who computes there, too, gets about half of its time.
    """

    def __init__(self, cpus: Sequence[int], owner: int) -> None:
        names = ",".join(map(str, cpus))
        command = [sys.executable, "-c", LOOP, str(owner), names]
        self._process = subprocess.Popen(command)  # noqa: S603 - the command is ours
        atexit.register(self.end)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()
