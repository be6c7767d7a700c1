"""Things that are made beside the runs, one after another, in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")
Job = Callable[[], Iterator[Made]]
"""Makes one thing after another."""


class Workshop(Generic[Made]):
    """Does one job at a time; ``at_once`` on the caller's thread, where two share no clock."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once
        self._thread = ThreadPoolExecutor(1, "coexec planning")
        self._under_way: Future[None] | None = None
        self._made: list[Made] = []

    @property
    def busy(self) -> bool:
        """Whether there is a job whose results nobody has asked for."""
        return self._under_way is not None

    @property
    def done(self) -> bool:
        """Whether that job is over."""
        return self._under_way is not None and self._under_way.done()

    def start(self, job: Job[Made]) -> None:
        """Begin a job; the one before it is forgotten."""
        made: list[Made] = []

        def work() -> None:
            for thing in job():
                made.append(thing)  # noqa: PERF402  who does not wait gets those so far

        self._made = made
        if not self.at_once:
            self._under_way = self._thread.submit(work)
            return
        self._under_way = Future()
        try:
            work()
        except Exception as error:  # noqa: BLE001  told to whoever asks for the results
            self._under_way.set_exception(error)
        else:
            self._under_way.set_result(None)

    def collect(self, *, wait: bool = True) -> tuple[list[Made], BaseException | None]:
        """What is made, and why it is not more.

        If not to ``wait``, all so far; what is made after that is nobody's.
        """
        assert self._under_way is not None
        future, self._under_way = self._under_way, None
        if wait or future.done():
            return self._made, future.exception()
        future.cancel()
        return list(self._made), None
