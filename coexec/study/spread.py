"""Tasks spread over processes by Dask: here, or on the machines behind a scheduler's address."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TypeVar

from coexec.base.errors import UsageError
from coexec.base.interrupts import interrupts_held

MISSING = (
    "to spread a study over processes takes Dask: pip install 'coexec[study]' "
    "(--workers 0 simulates in this process)"
)
Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Spread:
    """Over what: ``workers`` processes of this machine, or those behind ``scheduler``.

    No workers: in this process. ``scheduler`` is the address of a Dask scheduler, as
    ``tcp://desk:8786``, whose workers have the same coexec installed.
    """

    workers: int = 0
    scheduler: str = ""

    @property
    def processes(self) -> int:
        """How many simulate; 0 behind a scheduler, which may get more at any time."""
        return 0 if self.scheduler else max(self.workers, 1)

    def map(
        self, function: Callable[[Given], Result], tasks: Sequence[Given]
    ) -> Iterator[tuple[Given, Result | BaseException]]:
        """Results, or why there is none (a worker died), as they come.

        Raises:
            UsageError: Dask is not installed, or no scheduler answers.
        """
        if not (self.workers or self.scheduler):
            for task in tasks:
                yield task, function(task)
            return
        if importlib.util.find_spec("distributed") is None:
            raise UsageError(MISSING)
        distributed = importlib.import_module("distributed")
        with ExitStack() as stack:
            resource_tracker.ensure_running()  # begun later, it would let workers hear Ctrl-C
            with interrupts_held():  # workers are ended by this process, in their own order
                address = self.scheduler or stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=self.workers,
                        threads_per_worker=1,
                        dashboard_address=":0",  # any port: another study may run here
                        scheduler_kwargs={"dashboard": False},
                        silence_logs=logging.CRITICAL,  # rows say what failed
                    )
                )
            try:
                client = stack.enter_context(distributed.Client(address))
            except OSError as error:
                raise UsageError(
                    f"--scheduler {self.scheduler}: none answers ({error}); "
                    "start one with `dask scheduler`, and `dask worker` on each machine"
                ) from error
            futures = client.map(function, tasks, pure=False, batch_size=1)
            of = dict(zip((future.key for future in futures), tasks, strict=True))
            for future in distributed.as_completed(futures):
                failure = future.exception()
                yield of[future.key], future.result() if failure is None else failure
                future.release()


HERE = Spread()
