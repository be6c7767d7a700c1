"""Streams of inputs through several processors at once: as a pipeline, or as a copy on each.

Both keep every processor busy with another input, and give results in the order of the inputs.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType

import onnx_ir as ir

from coexec.api import LAST_RESORT, open_all
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.serving.stages import Stage, compile_stages
from coexec.serving.threads import Cores, own_cores, thread_for
from coexec.session import Session

Tensors = Mapping[str, Array]
NO_CORES: Mapping[str, Cores] = MappingProxyType({})
DEPTH = 4
"""Inputs under way per processor: the faster ones go on while the slowest has its oldest."""


class Stream(ABC):
    """A model on several processors for many inputs; threads are tied to ``cores`` by processor."""

    def __init__(self, cores: Mapping[str, Cores]) -> None:
        self.cores = cores

    @property
    @abstractmethod
    def processors(self) -> tuple[str, ...]:
        """Processors that take part; each has a thread while the stream runs."""

    @abstractmethod
    def start(self, feeds: Tensors, threads: Mapping[str, ThreadPoolExecutor]) -> Future[Tensors]:
        """Hand an input over; returns at once."""

    def run(self, inputs: Iterable[Tensors]) -> Iterator[Tensors]:
        """Outputs by name for each of ``inputs`` (inputs by name), in their order.

        A few inputs are drawn ahead of the result that is waited for. An error of an input is
        raised in its place and ends the stream.
        """
        under_way: deque[Future[Tensors]] = deque()
        with ExitStack() as stack:
            threads = {
                name: stack.enter_context(thread_for(name, self.cores.get(name, ())))
                for name in self.processors
            }
            for feeds in inputs:
                under_way.append(self.start(feeds, threads))
                if len(under_way) > DEPTH * len(threads):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()


class Pipeline(Stream):
    """Each input passes the stages one after the other; each stage works on another input."""

    def __init__(self, stages: Sequence[Stage], cores: Mapping[str, Cores] = NO_CORES) -> None:
        super().__init__(cores)
        self.stages = tuple(stages)

    @property
    def processors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.processor for stage in self.stages))

    def start(self, feeds: Tensors, threads: Mapping[str, ThreadPoolExecutor]) -> Future[Tensors]:
        done: Future[Tensors] = Future()

        def step(number: int, tensors: Tensors) -> None:
            try:
                made = self.stages[number].run(tensors)
                if number + 1 == len(self.stages):
                    done.set_result(made)
                else:
                    hand_over(number + 1, made)
            except BaseException as error:  # noqa: BLE001  raised again where the result is read
                done.set_exception(error)

        def hand_over(number: int, tensors: Tensors) -> None:
            threads[self.stages[number].processor].submit(step, number, tensors)

        hand_over(0, feeds)
        return done


class Replicas(Stream):
    """Each processor has the whole model and takes the next input when it is free."""

    def __init__(
        self, sessions: Mapping[str, Session], cores: Mapping[str, Cores] = NO_CORES
    ) -> None:
        super().__init__(cores)
        self.sessions = sessions
        self._waiting: queue.SimpleQueue[tuple[Tensors, Future[Tensors]]] = queue.SimpleQueue()

    @property
    def processors(self) -> tuple[str, ...]:
        return tuple(self.sessions)

    def start(self, feeds: Tensors, threads: Mapping[str, ThreadPoolExecutor]) -> Future[Tensors]:
        done: Future[Tensors] = Future()
        self._waiting.put((feeds, done))
        # Every thread is told that there is one more; whoever comes first takes the oldest.
        for name, thread in threads.items():
            thread.submit(self._take, name)
        return done

    def _take(self, name: str) -> None:
        try:
            feeds, done = self._waiting.get_nowait()
        except queue.Empty:
            return  # others were faster
        try:
            done.set_result(self.sessions[name].run(feeds))
        except BaseException as error:  # noqa: BLE001  raised again where the result is read
            done.set_exception(error)


def pipeline(model: ir.Model, plan: Plan) -> Pipeline:
    """Compile a planned model (both from :func:`coexec.placement.save.load_plan`) as a pipeline.

    Raises:
        ModelError: the plan divides nodes, or is not of this model.
        ProcessorError: a processor of the plan is not there.
    """
    names = [name for name in dict.fromkeys(plan.processors.values()) if name != LAST_RESORT]
    opened = open_all(names or [LAST_RESORT])
    return Pipeline(compile_stages(model, plan, opened, LAST_RESORT), _cores(opened))


def replicas(model: ir.Model, processors: Sequence[str]) -> Replicas:
    """Compile a whole copy of ``model`` for each processor (specs).

    Nodes that a processor refuses run on the last resort, with a ``FallbackWarning``.

    Raises:
        ProcessorError: a processor is not there.
    """
    opened = open_all(processors)
    last = {LAST_RESORT: opened[LAST_RESORT]}
    names = [name for name in opened if name != LAST_RESORT or LAST_RESORT in processors]
    sessions = {name: Session(model, {name: opened[name], **last}) for name in names}
    return Replicas(sessions, _cores(opened))


def _cores(processors: Mapping[str, Processor]) -> dict[str, Cores]:
    return {name: own_cores(processor) for name, processor in processors.items()}
