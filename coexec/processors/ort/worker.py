"""A thread that does the work of one processor in the order in which it was handed over."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from coexec.base.errors import ProcessorError
from coexec.core.flag import Raised
from coexec.core.processor import Ticket

Result = TypeVar("Result")


class Job(Ticket):
    """Work under way; ``future`` has its result or its error.

    ``raised`` is the moment at which a flag tells others that it is done.
    """

    def __init__(self, future: Future[object], raised: Raised | None = None) -> None:
        self.future = future
        self.raised = raised

    def then(self, call: Callable[[], object]) -> None:
        self.future.add_done_callback(lambda _future: call())


class Worker:
    """Runs jobs one after the other on a thread of its own, which lives as long as the process.

    After a job failed, the jobs behind it fail with the same error instead of computing on what it
    left, until :meth:`wait` has told the caller; what is handed over after that runs again.
    ``prepare`` runs first, on the thread.
    """

    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=prepare)
        self._failure: ProcessorError | None = None
        # Not held: what is done keeps nothing alive.
        self._newest: Callable[[], Future[object] | None] = lambda: None

    def hand_over(self, work: Callable[[], object]) -> Job:
        """Queue work; returns at once."""
        future = self._pool.submit(self._guarded, work)
        self._newest = weakref.ref(future)
        return Job(future)

    def settle(self) -> None:
        """Block until all that was handed over is done or has failed."""
        newest = self._newest()
        if newest is not None:
            wait([newest])

    def wait(self, job: Job) -> object:
        """The result of a job when it is done.

        Raises:
            ProcessorError: the job, or one before it, failed.
        """
        try:
            return job.future.result()
        except ProcessorError as error:
            self._pool.submit(self._forget)
            # A new object: the same failure may be told to several who wait.
            raise ProcessorError(str(error)) from error

    def call(self, function: Callable[[], Result]) -> Result:
        """Run ``function`` on the thread behind the jobs already there; errors are its own."""
        return self._pool.submit(function).result()

    def _guarded(self, work: Callable[[], object]) -> object:
        if self._failure is not None:
            raise self._failure
        try:
            return work()
        except ProcessorError as error:
            self._failure = error
            raise

    def _forget(self) -> None:
        self._failure = None
