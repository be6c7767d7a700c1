"""Servings on the real clock: a thread per processor runs what the scheduler says."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from coexec.serving.arrivals import Stream
from coexec.serving.dispatch import Dispatcher
from coexec.serving.outcome import Outcome
from coexec.serving.request import Choice, Scheduler, Service
from coexec.serving.threads import Cores, thread_for
from coexec.serving.virtual import Offered

Work = Callable[[Choice], object]
"""Runs the next step of a request, in the chosen way, on the calling thread."""
Observer = Callable[[float], None]
"""Hears of the milliseconds that have passed, at every decision."""


@dataclass(frozen=True)
class Ended:
    """A step that a thread is done with, or that failed."""

    choice: Choice
    start_ms: float
    end_ms: float
    error: BaseException | None


def serve(
    offered: Offered,
    processors: Sequence[str],
    scheduler: Scheduler,
    duration_ms: float,
    work: Work,
    *,
    cores: Sequence[Cores] = (),
    seed: int = 0,
    drop_late: bool = False,
    observe: Observer = lambda _passed: None,
) -> Outcome:
    """Serve until ``duration_ms``, then wait for what runs. Errors of ``work`` are raised here.

    The thread of each processor is tied to its ``cores``, if they are given.
    """
    serving = _Serving(Dispatcher(len(processors), scheduler, drop_late), work, duration_ms)
    serving.plan(offered, seed)
    with ExitStack() as stack:
        threads = [
            stack.enter_context(thread_for(name, tied))
            for name, tied in zip(processors, cores or ((),) * len(processors), strict=True)
        ]
        serving.go(threads, observe)
    return Outcome.of(serving.dispatcher, processors, duration_ms)


class _Serving:
    """The dispatching thread: it sleeps until a request comes or a step ends."""

    def __init__(self, dispatcher: Dispatcher, work: Work, duration_ms: float) -> None:
        self.dispatcher = dispatcher
        self.work = work
        self.duration_ms = duration_ms
        self.coming: list[tuple[float, int, int, Service]] = []
        self.streamed: Mapping[str, Service] = {}
        self.ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self.running = 0
        self.began_ns = 0

    def plan(self, offered: Offered, seed: int) -> None:
        """Know all arrivals that do not depend on the serving."""
        for number, (service, arrivals) in enumerate(offered):
            times = arrivals.times_ms(self.duration_ms, seed + number)
            self.coming += [(time, number, i, service) for i, time in enumerate(times)]
        heapq.heapify(self.coming)
        self.streamed = {s.name: s for s, a in offered if isinstance(a, Stream)}

    def go(self, threads: Sequence[ThreadPoolExecutor], observe: Observer) -> None:
        """Dispatch until time is up and nothing runs."""
        self.began_ns = time.perf_counter_ns()
        while (now := self._now()) < self.duration_ms or self.running:
            self._arrive(now)
            if now < self.duration_ms:
                for choice in self.dispatcher.due(now):
                    threads[choice.option.processors[0]].submit(self._run, choice)
                    self.running += 1
            observe(min(now, self.duration_ms))
            self._hear(self._sleep_ms(now))

    def _arrive(self, now: float) -> None:
        while self.coming and self.coming[0][0] <= now:
            arrived, _, _, service = heapq.heappop(self.coming)
            self.dispatcher.arrive(arrived, service)

    def _sleep_ms(self, now: float) -> float | None:
        """Until the next arrival or the end; for as long as it takes when only ends can come."""
        if now >= self.duration_ms:
            return None
        return min(self.coming[0][0] if self.coming else self.duration_ms, self.duration_ms) - now

    def _hear(self, timeout_ms: float | None) -> None:
        """Wait for an end, and take all that are there."""
        try:
            self._note(
                self.ended.get(timeout=None if timeout_ms is None else max(timeout_ms, 0) / 1e3)
            )
            while not self.ended.empty():
                self._note(self.ended.get())
        except queue.Empty:
            return  # the next arrival is due

    def _note(self, ended: Ended) -> None:
        self.running -= 1
        if ended.error is not None:
            raise ended.error
        served = self.dispatcher.end(ended.choice, ended.start_ms, ended.end_ms)
        if served and served.service.name in self.streamed and ended.end_ms < self.duration_ms:
            self.dispatcher.arrive(ended.end_ms, served.service)

    def _run(self, choice: Choice) -> None:
        start, error = self._now(), None
        try:
            self.work(choice)
        except BaseException as raised:  # noqa: BLE001  raised again in the dispatching thread
            error = raised
        self.ended.put(Ended(choice, start, self._now(), error))

    def _now(self) -> float:
        return (time.perf_counter_ns() - self.began_ns) / 1e6
