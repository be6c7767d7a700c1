"""ONNX Runtime behind the processor interface: memory, states, order, events, errors."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.events import COPY, LAUNCH, Event
from coexec.core.processor import Buffer
from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.find import measure_processor, open_processor
from coexec.processors.ort.buffer import ALIGNMENT, OrtBuffer
from coexec.processors.ort.executable import OrtExecutable
from coexec.processors.ort.inline import native_step
from coexec.processors.ort.model import LARGE_BYTES, build_model
from coexec.processors.ort.processor import OrtProcessor
from coexec.processors.ort.providers import PROVIDERS
from coexec.processors.ort.support import SupportOracle

F32 = np.dtype(np.float32)
ROW = TensorType((4,), F32)
INDEX = TensorType((1,), np.dtype(np.int64))


@pytest.fixture
def processor() -> OrtProcessor:
    found = open_processor("ort:cpu?threads=1")
    assert isinstance(found, OrtProcessor)
    return found


def call(op_type: str, *inputs: TensorType, name: str = "", **attributes: object) -> OpCall:
    bare = OpCall(op_type, inputs, attributes, version=21, name=name)
    return OPERATORS[op_type].typed(bare)


def filled(processor: OrtProcessor, array: Array) -> OrtBuffer:
    buffer = processor.alloc(array.nbytes)
    processor.wait(processor.copy(buffer, array, ()))
    return buffer


def content(processor: OrtProcessor, buffer: Buffer, kind: TensorType = ROW) -> Array:
    result = np.empty(kind.shape, kind.dtype)
    processor.wait(processor.copy(result, buffer, ()))
    return result


# Memory


def test_a_session_reads_and_writes_the_buffers_themselves(processor: OrtProcessor) -> None:
    executable = processor.compile(Region.alone(call("Relu", ROW)))
    assert isinstance(executable, OrtExecutable)
    x = filled(processor, np.array([-1, 2, -3, 4], F32))
    y = filled(processor, np.full(4, 9, F32))
    event = processor.wait(processor.submit(executable, [x, y], ()))
    assert y.memory.view(F32).tolist() == [0, 2, 0, 4]
    (result,) = executable.binding([x, y]).bound.get_outputs()
    assert result.data_ptr() == y.address
    # Nothing was copied on the way: the event would have parts.
    assert event.parts == ()
    x.memory.view(F32)[:] = 5  # no copy was kept either
    processor.wait(processor.submit(executable, [x, y], ()))
    assert y.memory.view(F32).tolist() == [5, 5, 5, 5]


def test_buffers_are_aligned(processor: OrtProcessor) -> None:
    for nbytes in (0, 1, 4, 1000):
        buffer = processor.alloc(nbytes)
        assert buffer.address % ALIGNMENT == 0
        assert buffer.memory.nbytes == buffer.nbytes == nbytes


def test_weights_are_not_written_into_the_model() -> None:
    product = call("MatMul", TensorType((1, 64), F32), TensorType((64, 64), F32))
    weight = np.ones((64, 64), np.float32)
    region = Region.alone(replace(product, constants={1: weight}))
    model = build_model(
        [native_step(region.nodes[0])],
        region.inputs,
        region.outputs,
        region.types,
        region.constants,
    )
    assert weight.nbytes > LARGE_BYTES > len(model.text)
    assert model.weights["x1"] is weight
    onnx.load_from_string(model.text)


def test_an_executable_stays_bound_to_few_sets_of_buffers(processor: OrtProcessor) -> None:
    executable = processor.compile(Region.alone(call("Relu", ROW)))
    assert isinstance(executable, OrtExecutable)
    x = filled(processor, np.arange(4, dtype=np.float32))
    kept = []
    for _ in range(20):
        y = processor.alloc(ROW.nbytes)
        kept.append(y)
        processor.wait(processor.submit(executable, [x, y], ()))
        assert content(processor, y).tolist() == [0, 1, 2, 3]
    assert len(executable.bindings) < 8


# States


def stateful_region() -> Region:
    """New = old + 1, and a reader of the old value behind a longer path than the writer."""
    add = call("Add", ROW, TensorType((), F32), name="update")
    neg, mul = call("Neg", ROW), call("Mul", ROW, ROW, name="product")
    nodes = (
        RegionNode(neg, ("x",), ("minus",)),
        RegionNode(neg, ("minus",), ("plus",)),
        RegionNode(mul, ("plus", "old"), ("y",)),
        RegionNode(add, ("old", "one"), ("new",)),
    )
    types = dict.fromkeys(("x", "old", "minus", "plus", "y", "new"), ROW)
    one = np.array(1, np.float32)
    types["one"] = TensorType.of(one)
    return Region(nodes, ("x", "old"), ("y", "new"), types, {"one": one}, {"new": "old"})


def test_a_state_is_replaced_after_all_readers_and_the_copy_is_an_event(
    processor: OrtProcessor,
) -> None:
    executable = processor.compile(stateful_region())
    x = filled(processor, np.full(4, 2, F32))
    old = filled(processor, np.array([1, 2, 3, 4], F32))
    y = processor.alloc(ROW.nbytes)
    for step in range(3):
        event = processor.wait(processor.submit(executable, [x, old, y, old], ()))
        expected = np.array([1, 2, 3, 4]) + step
        assert content(processor, y).tolist() == (2 * expected).tolist()
        assert content(processor, old).tolist() == (expected + 1).tolist()
        launch, copy = event.parts
        assert (launch.kind, copy.kind) == (LAUNCH, COPY)
        assert (copy.name, copy.bytes) == ("state new", ROW.nbytes)
        assert event.start_ns <= launch.start_ns <= launch.end_ns <= copy.start_ns
        assert copy.end_ns == event.end_ns


# Order and events


def test_submit_returns_at_once_and_order_is_kept(processor: OrtProcessor) -> None:
    executable = processor.compile(Region.alone(call("Relu", ROW)))
    x, y = (filled(processor, np.full(4, value, F32)) for value in (1, 0))
    go = threading.Event()
    held = processor.worker.hand_over(lambda: go.wait(20) and Event("held", LAUNCH, "", 0, 0))
    first = processor.submit(executable, [x, y], (held,))
    second = processor.copy(x, np.full(4, 7, F32), (first,))
    third = processor.submit(executable, [x, y], (second,))
    assert not any(job.future.done() for job in (held, first, second, third))
    go.set()
    events = [processor.wait(job) for job in (third, first, second)]
    assert content(processor, y).tolist() == [7, 7, 7, 7]
    third_ran, first_ran, second_ran = events
    assert first_ran.end_ns <= second_ran.start_ns <= second_ran.end_ns <= third_ran.start_ns


def test_events_are_on_the_hosts_clock_and_count_work(processor: OrtProcessor) -> None:
    side = TensorType((64, 64), F32)
    executable = processor.compile(Region.alone(call("MatMul", side, side, name="product")))
    buffers = [filled(processor, np.ones((64, 64), np.float32)) for _ in range(3)]
    before = time.perf_counter_ns()
    event = processor.wait(processor.submit(executable, buffers, ()))
    assert before <= event.start_ns < event.end_ns <= time.perf_counter_ns()
    assert (event.name, event.operator, event.track) == ("product", "MatMul", processor.name)
    assert (event.flop, event.dtype) == (2 * 64**3, "float32")


# Errors


def test_a_failing_node_is_named_and_what_follows_does_not_run(processor: OrtProcessor) -> None:
    gather = processor.compile(Region.alone(call("Gather", ROW, INDEX, name="lookup")))
    relu = processor.compile(Region.alone(call("Relu", INDEX_RESULT)))
    x = filled(processor, np.ones(4, np.float32))
    index = filled(processor, np.array([99], np.int64))
    middle, y = (filled(processor, np.full(1, value, F32)) for value in (-1, 5))
    failed = processor.submit(gather, [x, index, middle], ())
    behind = processor.submit(relu, [middle, y], (failed,))
    with pytest.raises(ProcessorError, match=r"threads=1: node 'lookup' \(Gather\) failed: .*99"):
        processor.wait(behind)
    with pytest.raises(ProcessorError, match="lookup"):
        processor.wait(failed)
    assert y.memory.view(F32).tolist() == [5]
    # Once it was told, the processor works again.
    processor.wait(processor.copy(index, np.array([0], np.int64), ()))
    processor.wait(processor.submit(gather, [x, index, middle], ()))
    assert content(processor, middle, INDEX_RESULT).tolist() == [1]


INDEX_RESULT = TensorType((1,), F32)


def test_limits_are_measured() -> None:
    rates = measure_processor("ort:cpu")
    assert {"float32", "float64"} <= set(rates.peak_gflops)
    assert min(rates.peak_gflops.values()) > 1
    assert rates.bandwidth_gbps > 1
    assert 0 < rates.launch_us < rates.sync_us
    assert set(rates.links) == {"write", "read"}
    assert "ONNX Runtime" in rates.driver


def test_an_executable_cannot_be_saved(processor: OrtProcessor) -> None:
    executable = processor.compile(Region.alone(call("Relu", ROW)))
    with pytest.raises(NotImplementedError, match="OrtExecutable cannot be saved in a bundle"):
        executable.to_json()


# Support


def test_a_call_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = SupportOracle(PROVIDERS["ort:cpu"])
    assert oracle.supports(call("Relu", ROW, name="one")).yes
    monkeypatch.setattr(oracle, "provider", None)
    assert oracle.supports(call("Relu", ROW, name="two")).yes
    with pytest.raises(AttributeError):
        oracle.supports(call("Relu", TensorType((5,), F32)))


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (call("ReduceProd", TensorType((3,), np.dtype(np.int32))), "products of integers saturate"),
        (call("Squeeze", TensorType((1, 3), F32)), "Squeeze wants its axes named"),
        (
            OpCall("Relu", (ROW,), {}, (replace(ROW, dtype=np.dtype(np.int64)),), version=21),
            "Type Error",
        ),
        (
            OpCall("CumProdGrad", (ROW, ROW), {}, (ROW,), domain="coexec", version=1),
            "coexec::CumProdGrad is no operator of ONNX Runtime and has no function body",
        ),
    ],
    ids=lambda each: each.op_type if isinstance(each, OpCall) else "",
)
def test_refusals_have_reasons(processor: OrtProcessor, refused: OpCall, reason: str) -> None:
    support = processor.supports(refused)
    assert not support.yes
    assert reason in support.reason
    assert len(support.reason) < 300
