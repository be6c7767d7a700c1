"""Simulated phones behind the processor interface: results, virtual time, memory, errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.base.errors import ProcessorError
from coexec.core.events import COPY, HOST, RUN, Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.soc_file import find_soc, soc_names
from coexec.core.types import OpCall, TensorType
from coexec.planning.planner import PlanOptions, plan_inference
from coexec.processors.find import list_processors, open_processor
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.pricing import Pricing
from coexec.processors.simulated.processor import SimulatedProcessor
from coexec.report.attribution import attribute
from coexec.session import Session
from coexec.simulation.condition import IDLE
from coexec.zoo.catalog import build

SOC = "snapdragon-865"
TWO = ("gpu", "cpu")


def open_phone(
    names: tuple[str, ...] = TWO,
    numerics: str = "reference",
    seed: int = 0,
    *,
    steady: bool = False,
) -> tuple[Phone, dict[str, Processor]]:
    """A phone of its own."""
    phone = Phone(find_soc(SOC), IDLE, seed, steady=steady)
    options = SimulatedOptions(numerics=numerics)
    opened = [SimulatedProcessor(phone, name, options) for name in names]
    return phone, {each.name: each for each in opened}


@pytest.fixture(scope="module")
def digits() -> ir.Model:
    return coexec.load(build("digits_cnn", batch=2))


@pytest.fixture(scope="module")
def image() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)}


def alternating(model: ir.Model, feeds: dict[str, np.ndarray], seed: int = 0) -> Session:
    """A session whose nodes go to the two processors in turn."""
    _, processors = open_phone(seed=seed)
    planned = plan_inference(model, feeds, processors, PlanOptions(seconds=0.0))
    names = [*processors]
    places = {name: names[i % 2] for i, name in enumerate(planned.plan.processors)}
    return Session(model, processors, follow=Plan(places))


def test_results_are_those_of_the_reference(digits: ir.Model, image: dict[str, np.ndarray]) -> None:
    expected = coexec.compile(digits, ["reference"]).run(image)
    _, processors = open_phone()
    for session in (Session(digits, processors), alternating(digits, image)):
        result = session.run(image)
        for name, value in expected.items():
            np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=1e-6)


def test_two_processors_work_in_one_virtual_time(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    trace = Trace()
    alternating(digits, image).run(image, trace=trace)
    (run,) = [event for event in trace.host() if event.kind == RUN]
    leaves = trace.leaves()
    assert {leaf.track for leaf in leaves} == {f"sim:{SOC}/gpu", f"sim:{SOC}/cpu"}
    assert all(run.start_ns <= leaf.start_ns <= leaf.end_ns <= run.end_ns for leaf in leaves)
    for track in {leaf.track for leaf in leaves}:
        mine = sorted((leaf.start_ns, leaf.end_ns) for leaf in leaves if leaf.track == track)
        assert all(end <= start for (_, end), (start, _) in pairwise(mine))


def test_the_same_seed_gives_the_same_trace_and_another_one_another(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    traces = []
    for seed in (3, 3, 4):
        trace = Trace()
        alternating(digits, image, seed).run(image, trace=trace)
        traces.append([(e.name, e.track, e.start_ns, e.end_ns) for e in trace.events])
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_on_a_steady_phone_every_run_takes_as_long(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    def times(*, steady: bool) -> list[int]:
        phone, processors = open_phone(("gpu",), "none", steady=steady)
        session = Session(digits, processors)
        found = [phone.timeline.now_ns()]
        for _ in range(20):
            session.run(image)
            found.append(phone.timeline.now_ns())
        return np.diff(found).tolist()

    steady = times(steady=True)
    assert max(steady) - min(steady) <= 2  # nanoseconds, of rounding
    drawn = times(steady=False)
    assert min(drawn) < 0.98 * steady[0] < 1.02 * steady[0] < max(drawn)


def test_the_report_accounts_for_all_of_a_simulated_run(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    _, processors = open_phone()
    trace = Trace()
    Session(digits, processors).run(image, trace=trace)
    gpu = next(iter(processors.values()))
    assert isinstance(gpu, SimulatedProcessor)
    found = attribute(trace, {gpu.name: gpu.rates()})
    assert found.residual == 0.0
    assert found.wall_ns > 0
    assert sum(event.kind == COPY for event in trace.leaves()) == 2
    assert [event.track for event in trace.events if event.track == HOST]


def test_a_wait_costs_the_synchronisation_once(image: dict[str, np.ndarray]) -> None:
    phone, processors = open_phone(("gpu",))
    (gpu,) = processors.values()
    data = np.zeros(64, np.uint8)
    buffer = gpu.alloc(data.nbytes)
    first, second = gpu.copy(buffer, data, ()), gpu.copy(data, buffer, ())
    end = gpu.wait(second).end_ns
    known = phone.timeline.now_ns()
    assert known - end >= phone.soc.latency.gpu_sync.p10_us * 1e3 / 2
    gpu.wait(first)
    assert phone.timeline.now_ns() == known


def test_without_numerics_time_passes_and_results_are_zero(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    found = {}
    for numerics in ("reference", NONE):
        phone, processors = open_phone(numerics=numerics)
        (y,) = Session(digits, processors).run(image).values()
        found[numerics] = (phone.timeline.now_ns(), bool(y.any()))
    assert found[NONE] == (found["reference"][0], False)


def test_without_fusion_operators_are_kernels_of_their_own(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    found = {}
    for spec in (f"sim:{SOC}/gpu", f"sim:{SOC}/gpu?fusion=off"):
        trace = Trace()
        session = coexec.compile(digits, [spec])
        (y,) = session.run(image, trace=trace).values()
        (launch,) = [event for event in trace.events if event.kind == "launch"]
        found[spec] = (len(launch.parts), launch.duration_ns, y)
    fused, plain = found.values()
    assert fused[0] < plain[0]
    assert fused[1] < plain[1]
    np.testing.assert_array_equal(fused[2], plain[2])


def test_a_plan_for_simulated_processors_predicts_their_time(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    for names in (("cpu",), ("gpu",)):
        phone, processors = open_phone(names, NONE)
        planned = plan_inference(digits, image, processors, PlanOptions(seconds=0.0))
        session = Session(digits, processors, follow=planned.plan)
        session.run(image)
        assert planned.plan.predicted_us is not None
        ratio = phone.timeline.now_ns() / 1e3 / planned.plan.predicted_us
        assert 0.7 < ratio < 1.3


def test_simulated_and_real_processors_have_no_common_clock(
    digits: ir.Model, image: dict[str, np.ndarray]
) -> None:
    _, processors = open_phone(("gpu",))
    both = {**processors, "reference": open_processor("reference")}
    planned = plan_inference(digits, image, processors, PlanOptions(seconds=0.0))
    places = dict(planned.plan.processors)
    places[next(reversed(places))] = "reference"
    with pytest.raises(ProcessorError, match="no common clock"):
        Session(digits, both, follow=Plan(places))


def test_memory_beyond_the_wall_is_refused_and_memory_before_it_is_paged() -> None:
    phone, processors = open_phone(("cpu",), NONE)
    (cpu,) = processors.values()
    kept = cpu.alloc(phone.memory.free_bytes)
    assert phone.memory.paging_us(1 << 20) == 0.0
    with pytest.raises(ProcessorError, match="too much"):
        cpu.alloc(phone.memory.free_bytes)
    more = cpu.alloc(phone.memory.free_bytes // 8)
    assert phone.memory.paging_us(1 << 20) > 0.0
    del kept, more
    assert phone.memory.allocated_bytes == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sim", "write sim:<phone>/<processor>"),
        ("sim:snapdragon-1/gpu", "snapdragon-865"),
        ("sim:snapdragon-865/xpu", "cpu, gpu, npu"),
        ("sim:snapdragon-865/cpu:9big", "not 9"),
        ("sim:snapdragon-865/gpu?engine=fast", "stock-mnn-opencl"),
        ("sim:snapdragon-865/gpu?heat=1", "known: engine"),
        ("sim:snapdragon-865/gpu?seed=-1", "whole number"),
    ],
)
def test_a_wrong_specification_lists_what_is_known(spec: str, message: str) -> None:
    with pytest.raises(ProcessorError, match=message):
        open_processor(spec)


def test_processors_of_one_specification_share_a_phone() -> None:
    gpu, cpu = (open_processor(f"sim:{SOC}/{name}?seed=77") for name in TWO)
    assert isinstance(gpu, SimulatedProcessor)
    assert isinstance(cpu, SimulatedProcessor)
    assert gpu.phone is cpu.phone
    assert open_processor(gpu.describe().name).describe() == gpu.describe()


def test_the_list_of_processors_says_how_to_name_a_phone() -> None:
    (line,) = [each for each in list_processors() if each.name == "sim"]
    assert line.spec is None
    assert SOC in line.reason


def test_an_npu_refuses_element_types_that_it_lacks_and_takes_them_as_int8() -> None:
    kind = TensorType((4, 4), np.dtype(np.float32))
    call = OpCall("Add", (kind, kind), {}, (kind,), version=21)
    phone = Phone(find_soc(SOC), IDLE)
    plain = SimulatedProcessor(phone, "npu", SimulatedOptions())
    quantised = SimulatedProcessor(phone, "npu", SimulatedOptions(precision="int8"))
    assert "int8" in plain.supports(call).reason
    assert quantised.supports(call).yes


@pytest.mark.parametrize("name", soc_names())
def test_copies_take_no_more_bandwidth_than_the_memory_has(name: str) -> None:
    """Where mapping is faster than DRAM, not all of a buffer is moved."""
    soc = find_soc(name)
    for processor in soc.processors:
        work = Pricing(soc, processor, SimulatedOptions()).copy(5_000_000, to_host=True)
        assert 0 < work.alone(1.0).most_gbps <= soc.memory.shared_gbps * (1 + 1e-9)
