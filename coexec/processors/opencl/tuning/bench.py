"""One call on a device: candidates built, checked against an oracle, and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil, prod
from statistics import median

import numpy as np
import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.core.types import Array, OpCall, Region
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.choose import Choice, always
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.tuning.check import disagreement
from coexec.processors.opencl.tuning.operands import draw_operands
from coexec.processors.opencl.tuning.search import Refused

SAMPLE_MS = 1.0
"""A sample of a short kernel is the median of as many runs as this takes."""
MOST_RUNS = 20
POISON = 0xA5
GUARD = 4096
"""Bytes behind every buffer that a kernel writes to; they must stay as they are."""
SEED = 0

BUILD, LAUNCH, WRONG = "does not build", "does not run", "wrong result"
LIMIT, OUTSIDE = "exceeds the device", "writes outside its buffers"
"""Why a candidate is refused."""


class CallBench:
    """Buffers with random operands of one call, and the results that candidates must have."""

    def __init__(self, device: OpenCLProcessor, call: OpCall) -> None:
        self.device = device
        self.call = call
        self.region = Region.alone(call)
        self.facts = device.facts_for(self.region)
        values = draw_operands(call, np.random.default_rng(SEED))
        self._buffers: dict[str, OpenCLBuffer] = {
            name: self._upload(values[name]) for name in self.region.inputs
        }
        for name in self.region.outputs:
            self._buffers[name] = Guarded.alloc(device, self.region.types[name].nbytes)
        self._expected: Mapping[str, Array] | None = None

    def set_oracle(self, oracle: Choice) -> float:
        """Take the results of ``oracle`` for right; milliseconds of its one run.

        Raises:
            Refused: it does not build or run.
        """
        self._expected = None
        trial = self.prepare(oracle)
        self._expected = self._results()
        return trial.first_ms

    def prepare(self, choice: Choice) -> DeviceTrial:
        """Build a candidate, run it once and compare with the oracle, if there is one.

        Raises:
            Refused: it does not build, run or agree.
        """
        try:
            executable = compile_region(
                self.region, self.facts, self.device.name, always(choice), fusing=False
            )
        except (ValueError, ArithmeticError, LookupError, AssertionError) as error:
            raise Refused(f"{BUILD}: {error}") from error
        try:
            self.device.prepare(executable)
        except ProcessorError as error:
            raise Refused(BUILD) from error
        try:
            self._check_limits(executable)
            buffers = self._arguments(executable)
            guarded = [buffer for buffer in buffers if isinstance(buffer, Guarded)]
            for buffer in guarded:
                buffer.poison(self.device)
            trial = DeviceTrial(self.device, executable, buffers)
            intact = all(buffer.is_intact(self.device) for buffer in guarded)
        except (ProcessorError, cl.Error) as error:
            raise Refused(LAUNCH) from error
        if not intact:
            raise Refused(OUTSIDE)
        if self._expected is not None:
            reason = disagreement(self.call, self._results(), self._expected)
            if reason is not None:
                raise Refused(WRONG)
        return trial

    def _check_limits(self, executable: OpenCLExecutable) -> None:
        """Work-group sizes and local memory, before a driver gets to see too much of either."""
        facts, device = self.device.facts, self.device.device
        programs = self.device.programs.build(executable.programs)
        info = cl.kernel_work_group_info
        for step in (*executable.preparation, *executable.steps):
            if not isinstance(step, KernelStep):
                continue
            kernel = cl.Kernel(programs[step.program], step.entry)
            most = min(
                facts.max_work_group_size,
                kernel.get_work_group_info(info.WORK_GROUP_SIZE, device),
            )
            local = kernel.get_work_group_info(info.LOCAL_MEM_SIZE, device)
            if prod(step.local_size or (1,)) > most or local > facts.local_bytes:
                raise Refused(LIMIT)

    def _arguments(self, executable: OpenCLExecutable) -> list[OpenCLBuffer]:
        names = (*executable.inputs, *executable.outputs)
        buffers = [self._buffers[name] for name in names]
        if executable.scratch_bytes:
            buffers.append(Guarded.alloc(self.device, executable.scratch_bytes))
        return buffers

    def _upload(self, array: Array) -> OpenCLBuffer:
        buffer = self.device.alloc(array.nbytes)
        self.device.wait(self.device.copy(buffer, np.ascontiguousarray(array), ()))
        return buffer

    def _results(self) -> dict[str, Array]:
        results = {}
        for name in self.region.outputs:
            kind = self.region.types[name]
            results[name] = np.empty(kind.shape, kind.dtype)
            self.device.wait(self.device.copy(results[name], self._buffers[name], ()))
        return results


class Guarded(OpenCLBuffer):
    """Device memory of ``nbytes`` with a guard zone behind."""

    @classmethod
    def alloc(cls, device: OpenCLDevice, nbytes: int) -> Guarded:
        return cls(device.alloc(nbytes + GUARD).memory, nbytes)

    def poison(self, device: OpenCLDevice) -> None:
        """Overwrite what an earlier candidate left, and the guard zone."""
        cl.enqueue_copy(device.queue, self.memory, np.full(self.nbytes + GUARD, POISON, np.uint8))

    def is_intact(self, device: OpenCLDevice) -> bool:
        zone = np.empty(GUARD, np.uint8)
        cl.enqueue_copy(device.queue, zone, self.memory, src_offset=self.nbytes)
        return bool(np.all(zone == POISON))


class DeviceTrial:
    """A built candidate that has run once (its warm-up): ``first_ms`` is how long that took."""

    def __init__(
        self, device: OpenCLDevice, executable: OpenCLExecutable, buffers: list[OpenCLBuffer]
    ) -> None:
        self.device = device
        self.executable = executable
        self.buffers = buffers
        self.first_ms = self._run()
        self._runs = min(MOST_RUNS, max(1, ceil(SAMPLE_MS / max(self.first_ms, 1e-3))))

    def sample(self) -> float:
        return median(self._run() for _ in range(self._runs))

    def _run(self) -> float:
        """From the start of the first kernel to the end of the last, by the device's clock."""
        start = time.perf_counter_ns()
        event = self.device.wait(self.device.submit(self.executable, self.buffers, ()))
        if not self.executable.steps:
            return (time.perf_counter_ns() - start) / 1e6
        return event.duration_ns / 1e6
