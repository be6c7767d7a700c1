"""A processor with a limit of its memory: nothing more is allocated, and the refusal says why."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import DeviceMemoryError, ProcessorError
from coexec.core.device_memory import DeviceMemory
from coexec.core.processor import Processor
from coexec.processors.find import open_processor
from tests.runtimes import THOROUGH

RUNTIME = THOROUGH[0]
BATCH = 8


def trainer(processor: str, parts: int = 1) -> coexec.Trainer:
    """Of a small network."""
    model = coexec.load(zoo.build("mlp"))
    how = (SoftmaxCrossEntropy(), SGD(0.1, momentum=0.9))
    return coexec.Trainer(model, *how, [processor], micro_batches=parts)


def losses(learner: coexec.Trainer, steps: int = 3) -> list[float]:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, 784), np.float32), rng.integers(0, 10, BATCH)
    return [learner.step({"x": x}, labels) for _ in range(steps)]


def memory_of(processor: Processor) -> DeviceMemory:
    memory = getattr(processor, "memory", None)
    assert isinstance(memory, DeviceMemory)
    return memory


@pytest.mark.parametrize("processor", [RUNTIME, "reference"])
def test_a_training_fits_a_limit_of_its_planned_peak_and_not_one_byte_less(processor: str) -> None:
    free = trainer(processor)
    expected = losses(free)
    peak = free.peak_bytes

    fits = f"{processor}?memory={peak}B"
    limited = trainer(fits)
    assert losses(limited) == expected
    memory = memory_of(open_processor(fits))
    assert memory.allocated_bytes == memory.peak_bytes == memory.limit_bytes == peak
    del limited
    gc.collect()
    assert memory.allocated_bytes == 0

    with pytest.raises(DeviceMemoryError, match="do not fit the limit"):
        losses(trainer(f"{processor}?memory={peak - 1}B"), 1)


def test_what_micro_batches_take_counts_the_optimizer_state_of_their_update() -> None:
    name = f"{RUNTIME}?memory=63MiB"
    learner = trainer(name, parts=2)
    planned = learner.planned_bytes({"x": np.zeros((BATCH, 784), np.float32)})
    losses(learner, 1)
    assert planned == learner.peak_bytes == memory_of(open_processor(name)).allocated_bytes
    assert planned > learner.program.peak_bytes


def test_a_refusal_says_what_was_wanted_and_what_holds_the_most() -> None:
    with pytest.raises(DeviceMemoryError) as refusal:
        losses(trainer("reference?memory=1MiB"), 1)
    message = str(refusal.value)
    assert message.startswith("reference?memory=1MiB: 7")
    for part in (
        "more do not fit the limit of 1.0 MiB",
        "1.8 MiB for parameters and other states",
        "its largest buffers are fc1.weight (784.0 KiB)",
        "Use a smaller batch, more micro-batches, or a memory budget (--memory)",
    ):
        assert part in message


def test_what_was_refused_is_not_counted() -> None:
    memory = DeviceMemory("gpu", 100)
    memory.take(60)
    with pytest.raises(DeviceMemoryError, match="41 B more do not fit the limit of 100 B: 60 B"):
        memory.take(41)
    memory.take(40)
    memory.give_back(100)
    assert (memory.allocated_bytes, memory.peak_bytes) == (0, 100)


@pytest.mark.parametrize("spec", [RUNTIME, "reference"])
def test_the_limit_is_the_memory_that_a_processor_tells_of(spec: str) -> None:
    if spec == RUNTIME:
        assert open_processor(f"{spec}?memory=3MiB").describe().memory_bytes == 3 * 2**20
    with pytest.raises(ProcessorError, match=r"memory=much: 'much' is no amount of memory"):
        open_processor(f"{spec}?memory=much")


def test_constants_count_too() -> None:
    """Weights of inference: they come to the device with the first run."""
    model = coexec.load(zoo.build("mlp"))
    session = coexec.compile(model, [f"{RUNTIME}?memory=512KiB"])
    with pytest.raises(DeviceMemoryError, match="constants"):
        session.run({"x": np.zeros((BATCH, 784), np.float32)})
