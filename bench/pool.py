"""Worker processes, started when they are first needed and again after they failed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.contenders import Contender
from bench.environment import site_packages
from bench.protocol import Worker

OPENBLAS_SPIN = "22"
"""OpenBLAS's threads spin for 2^22 cycles (2 ms) after a call: longer than what lies between two
calls, not so long (0.1 s by default) that they take a core from whoever comes next."""


@dataclass(frozen=True)
class Where:
    """Interpreters and cores."""

    peers_python: str
    cores: tuple[int, ...]

    @classmethod
    def of(cls, peers_python: str, threads: int) -> Where:
        """The first ``threads`` cores that this process may use."""
        usable = (
            sorted(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else list(range(os.cpu_count() or 1))
        )
        return cls(peers_python, tuple(usable[:threads]))

    @property
    def threads(self) -> int:
        return len(self.cores)

    def environment(self) -> dict[str, str]:
        """As many threads for everybody."""
        count = str(self.threads)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        same = dict.fromkeys((*names, "POCL_MAX_PTHREAD_COUNT"), count)
        return same | {"OPENBLAS_THREAD_TIMEOUT": OPENBLAS_SPIN}

    def command(self, contender: Contender) -> list[str]:
        """The worker's command line."""
        python = sys.executable if contender.ours or contender.beside_us else self.peers_python
        options = {"threads": self.threads, "started": time.time(), **contender.options}
        if contender.beside_us:
            options["site"] = str(site_packages(Path(self.peers_python)))
        cores = ",".join(map(str, self.cores))
        flags = ["-W", "ignore", "-m", "bench.worker", contender.module]
        return [python, *flags, "--options", json.dumps(options), "--cores", cores]


@dataclass
class Pool:
    """Running workers by the name of their process; their standard error goes to ``log``."""

    where: Where
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)
    _file: IO[bytes] | None = None

    def worker(self, contender: Contender) -> Worker:
        """The contender's worker, started if need be."""
        if contender.process not in self._workers:
            if self._file is None:
                self._file = self.log.open("ab")
            command = self.where.command(contender)
            environment = {**self.where.environment(), **self.environment}
            self._workers[contender.process] = Worker(command, environment, self._file)
        return self._workers[contender.process]

    def enter(self, environment: Mapping[str, str]) -> None:
        """End all workers: the next ones have this environment."""
        if environment != self.environment:
            self.close()
            self.environment = dict(environment)

    def discard(self, contender: Contender) -> None:
        """End a worker: the next call starts another."""
        worker = self._workers.pop(contender.process, None)
        if worker is not None:
            worker.close()

    def close(self) -> None:
        """End all workers."""
        for name in list(self._workers):
            self._workers.pop(name).close()
        if self._file is not None:
            self._file.close()
            self._file = None
