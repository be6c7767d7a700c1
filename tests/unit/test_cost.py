"""Costs: measured, else fitted, else roofline; distributions; what the cache keeps."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from coexec.base.errors import ProcessorError
from coexec.core.machine import Link, Rates
from coexec.core.processor import Buffer, Executable, Host, ProcessorSpec, Ticket
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.cost import fitted as regressions
from coexec.cost import measuring, transfer
from coexec.cost.distribution import Distribution
from coexec.cost.fitted import LEAST_ENTRIES, LEAST_OF_OPERATOR, features, fit
from coexec.cost.key import call_key
from coexec.cost.measured import measure_call
from coexec.cost.measuring import measure
from coexec.cost.model import ProcessorCosts
from coexec.cost.roofline import roofline_us
from coexec.cost.store import CostStore, Entry
from coexec.cost.transfer import (
    LARGE_BYTES,
    LARGE_REPEATS,
    PLACES,
    TINY_REPEATS,
    between,
    link_from_rates,
    measure_handover,
    measure_link,
)
from coexec.processors.reference.processor import Done, ReferenceProcessor

F32 = np.dtype("float32")
RATES = Rates(
    {"float32": 100.0}, 10.0, 5.0, 20.0, {"write": Link(10.0, 2.0), "read": Link(30.0, 4.0)}
)
SPEC = ProcessorSpec("made:up?x=1", "cpu", "none", "driver 1")


def relu(size: int) -> OpCall:
    kind = TensorType((size,), F32)
    return OpCall("Relu", (kind,), {}, (kind,), version=21, name=f"relu{size}")


def product(m: int, k: int, n: int, *, weights: bool = False, dtype: np.dtype[Any] = F32) -> OpCall:
    left, right = TensorType((m, k), dtype), TensorType((k, n), dtype)
    constants = {1: np.ones((k, n), dtype)} if weights else {}
    result = TensorType((m, n), dtype)
    return OpCall("MatMul", (left, right), {}, (result,), constants, version=21)


def nothing(_seconds: float, _text: str) -> None:
    """An observer that does not look."""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every call takes 5 us, whatever disturbs this one: one visit is enough."""
    monkeypatch.setattr(measuring, "measure_call", lambda *_: Distribution.exactly(5.0))
    monkeypatch.setattr(measuring, "HEAVY", 1.0)


def test_distributions_add_up_as_independent_times_do() -> None:
    assert Distribution.of([1, 2, 3, 4, 5]).median_us == 3
    total = Distribution(10, 7, 13).plus(Distribution(20, 16, 24))
    assert (total.median_us, total.low_us, total.high_us) == (30, 25, 35)
    assert Distribution.exactly(4.0).sigma == 0
    rng = np.random.default_rng(0)
    drawn = Distribution.of((50 * np.exp(0.3 * rng.standard_normal(5000))).tolist())
    assert drawn.sigma == pytest.approx(0.3, rel=0.05)


def test_roofline_is_launch_and_the_larger_of_arithmetic_and_traffic() -> None:
    assert roofline_us(relu(10**6), RATES) == pytest.approx(5 + 8e6 / 10 / 1e3)
    assert roofline_us(product(512, 512, 512), RATES) == pytest.approx(5 + 2 * 512**3 / 100e3)
    kind = TensorType((4, 4), F32)
    shape = TensorType((1,), np.dtype("int64"))
    view = OpCall("Reshape", (kind, shape), {}, (TensorType((16,), F32),), {1: np.array([16])})
    assert roofline_us(view, RATES) == 0


def test_keys_tell_apart_what_takes_another_time() -> None:
    same = dataclasses.replace(relu(8), name="another")
    assert call_key(relu(8)) == call_key(same)
    keys = [call_key(c) for c in (relu(8), relu(9), product(8, 8, 8), product(8, 8, 9))]
    assert len(set(keys)) == 4
    assert call_key(product(8, 16, 8)) != call_key(product(8, 16, 8, weights=True))
    other = dataclasses.replace(product(8, 16, 8, weights=True), constants={1: np.zeros((16, 8))})
    assert call_key(other) == call_key(product(8, 16, 8, weights=True))
    axes = [
        OpCall("ReduceSum", relu(8).inputs, {}, constants={1: np.array([axis])}) for axis in (0, 1)
    ]
    with_axes = [dataclasses.replace(c, inputs=(*c.inputs, relu(1).inputs[0])) for c in axes]
    assert call_key(with_axes[0]) != call_key(with_axes[1])


def test_measuring_runs_the_call_alone() -> None:
    region = Region.alone(product(4, 8, 2, weights=True))
    assert (region.inputs, region.outputs, set(region.constants)) == (("x0",), ("y0",), {"x1"})
    small = measure_call(ReferenceProcessor(), product(8, 8, 8))
    large = measure_call(ReferenceProcessor(), product(512, 512, 512))
    assert 0 < small.low_us <= small.median_us <= small.high_us
    assert large.median_us > 10 * small.median_us


def test_a_link_has_a_latency_that_varies_and_time_per_byte() -> None:
    link = measure_link(ReferenceProcessor())
    assert 0 < link.write.latency.low_us <= link.write.latency.high_us
    assert 0 < link.read.us_per_byte < 1
    known = link_from_rates(RATES)
    both = between(known, known)
    assert both.latency.median_us == 40 + 20  # read, write, and the start of what reads it
    assert both.us_per_byte == pytest.approx(1e-3 / 2 + 1e-3 / 4)
    slow = Rates({"float32": 1.0}, 1.0, 1.0, 7.0, {"write": Link(1.0, 1.0), "read": Link(2.0, 0.5)})
    there, back = between(known, link_from_rates(slow)), between(link_from_rates(slow), known)
    assert (there.latency.median_us, back.latency.median_us) == (30 + 1 + 7, 2 + 10 + 20)
    assert there.us_per_byte == pytest.approx(1e-3 / 4 + 1e-3 / 1)


class Noting(ReferenceProcessor):
    """Notes from where large copies are."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[int] = []

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Done:
        for end in (dst, src):
            if isinstance(end, np.ndarray) and end.nbytes == LARGE_BYTES:
                self.places.append(id(end))
        return super().copy(dst, src, after)


def test_large_copies_change_places_so_that_no_cache_has_them() -> None:
    noting = Noting()
    measure_link(noting)
    assert len(set(noting.places)) == PLACES
    assert all(one != next_ for one, next_ in itertools.pairwise(noting.places))


def test_bytes_take_time_where_copies_of_a_few_were_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few bytes took 4 ms each time, many 1 ms once: of that half at least is not latency."""
    times = {TINY_REPEATS: [4000.0] * TINY_REPEATS, LARGE_REPEATS: [5000.0] * 8 + [1000.0] * 4}
    monkeypatch.setattr(transfer, "_samples_us", lambda _action, repeats: times[repeats])
    assert measure_link(ReferenceProcessor()).read.us_per_byte == 500.0 / LARGE_BYTES


def test_between_processors_on_common_memory_only_the_way_from_end_to_start_counts() -> None:
    found = measure_handover(ReferenceProcessor(), ReferenceProcessor())
    assert found is not None
    assert 0 < found.median_us < 1e4
    apart = ReferenceProcessor()
    apart.host_memory = False
    assert measure_handover(ReferenceProcessor(), apart) is None


def test_the_cache_keeps_times_by_processor_driver_and_version(tmp_path: Path) -> None:
    store = CostStore(SPEC, "1", tmp_path)
    entry = Entry(Distribution(3.0, 2.5, 4.0), "Relu", features(relu(8)))
    store.put(call_key(relu(8)), entry)
    store.save()
    again = CostStore(SPEC, "1", tmp_path).get(call_key(relu(8)))
    assert again is not None
    assert again.time == entry.time
    assert again.features == pytest.approx(entry.features, rel=1e-5)
    assert CostStore(SPEC, "2", tmp_path).get(call_key(relu(8))) is None
    newer = dataclasses.replace(SPEC, driver="driver 2")
    assert CostStore(newer, "1", tmp_path).get(call_key(relu(8))) is None


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"entries": {"k": {}}}', '{"entries": {"k": {"us": [1, 2, 0]}}}']
)
def test_a_damaged_cache_is_measured_again(tmp_path: Path, damage: str) -> None:
    path = CostStore(SPEC, "1", tmp_path).path
    path.write_text(damage)
    assert CostStore(SPEC, "1", tmp_path).entries == {}


def test_two_processes_add_to_one_cache(tmp_path: Path) -> None:
    first, second = CostStore(SPEC, "1", tmp_path), CostStore(SPEC, "1", tmp_path)
    for store, key in ((first, "a"), (second, "b")):
        store.put(key, Entry(Distribution.exactly(1.0)))
        store.save()
    assert set(CostStore(SPEC, "1", tmp_path).entries) == {"a", "b"}


def test_measured_before_fitted_before_roofline(tmp_path: Path) -> None:
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))
    assert costs.cost(relu(64)).source == "roofline"
    assert costs.fitted is None
    for power in range(LEAST_ENTRIES):
        size = int(64 * 1.3**power)
        time = Distribution.exactly(2 + size / 1000)
        entry = Entry(time, "Relu", features(relu(size)), costs.code(relu(size)))
        costs.store.put(call_key(relu(size)), entry)
    fitted = costs.cost(relu(5000))
    assert fitted.source == "fitted"
    assert fitted.time.median_us == pytest.approx(7, rel=0.3)
    assert costs.fitted is not None
    assert 0 < costs.fitted.error < 0.3
    assert costs.cost(relu(64)).source == "measured"
    # The regression knows nothing of products.
    assert costs.cost(product(8, 8, 8)).source == "roofline"


def test_calls_far_larger_than_any_measured_are_predicted_by_the_limits(tmp_path: Path) -> None:
    """As those of a large network are where only a small one was trained."""
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))
    for number in range(LEAST_ENTRIES):
        call = relu(64 + 16 * number)
        time = Distribution.exactly(2 * roofline_us(call, RATES))
        costs.store.put(call_key(call), Entry(time, "Relu", features(call), costs.code(call)))
    large = costs.cost(relu(1 << 26))
    assert large.source == "fitted"
    limit = roofline_us(relu(1 << 26), RATES)
    assert large.time.median_us == pytest.approx(2 * limit, rel=0.01)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_times_are_multiples_of_the_limits_of_their_element_type(name: str) -> None:
    """All are three times what their own peak allows, so that any other is as well."""
    rates = Rates({"float16": 900.0, "float32": 100.0, "float64": 7.0}, 1e6, 5.0, 20.0, {})
    calls = [product(64, 64, 64 + n, dtype=np.dtype(name)) for n in range(LEAST_ENTRIES)]
    entries = {
        call_key(call): Entry(
            Distribution.exactly(3 * roofline_us(call, rates)), call.op_type, features(call)
        )
        for call in calls
    }
    fitted, large = fit(entries, rates), product(512, 512, 512, dtype=np.dtype(name))
    assert fitted is not None
    predicted = fitted.predict(large, rates)
    assert predicted is not None
    assert predicted.median_us == pytest.approx(3 * roofline_us(large, rates), rel=0.01)


def entries_of(calls: Sequence[OpCall]) -> dict[str, Entry]:
    """Times of 2, 3, 4 ... us."""
    return {
        call_key(call): Entry(Distribution.exactly(2.0 + n), call.op_type, features(call))
        for n, call in enumerate(calls)
    }


def test_operators_that_were_hardly_ever_measured_are_not_fitted() -> None:
    products = [product(8, 8, 8 + n) for n in range(LEAST_OF_OPERATOR)]
    relus = [relu(64 + n) for n in range(LEAST_ENTRIES)]
    for count, known in ((LEAST_OF_OPERATOR - 1, False), (LEAST_OF_OPERATOR, True)):
        fitted = fit(entries_of([*relus, *products[:count]]), RATES)
        assert fitted is not None
        assert (fitted.predict(product(9, 9, 9), RATES) is not None) is known


def test_predictions_scatter_as_those_of_cross_validation_did() -> None:
    fitted = fit(entries_of([relu(64 + n) for n in range(LEAST_ENTRIES)]), RATES)
    assert fitted is not None
    assert fitted.sigma > 0
    predicted = fitted.predict(relu(5000), RATES)
    assert predicted is not None
    assert predicted.sigma == pytest.approx(fitted.sigma, rel=1e-4)


def test_of_many_times_one_fold_says_how_far_predictions_are_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = entries_of([relu(64 + n) for n in range(200)])
    whole = fit(entries, RATES)
    train, sizes = GradientBoostingRegressor.fit, []

    def counted(self: Any, rows: Array, *rest: Any) -> Any:
        sizes.append(len(rows))
        return train(self, rows, *rest)

    monkeypatch.setattr(GradientBoostingRegressor, "fit", counted)
    monkeypatch.setattr(regressions, "MANY", 200)
    regressions._fitted.cache_clear()
    found = fit(entries, RATES)
    regressions._fitted.cache_clear()
    assert sizes == [160, 200]
    assert whole is not None
    assert found is not None
    assert found.sigma == pytest.approx(whole.sigma, rel=0.5)
    row = (0.0, *features(relu(5000)))
    assert found.model.predict(row) == whole.model.predict(row)


def test_a_few_times_make_no_fit() -> None:
    few = {str(n): Entry(Distribution.exactly(n), "Relu", features(relu(n))) for n in range(1, 20)}
    assert fit(few, RATES) is None


def test_the_same_times_are_trained_once_and_a_call_is_predicted_once() -> None:
    calls = [relu(64 + n) for n in range(LEAST_ENTRIES)]
    entries = entries_of(calls)
    fitted = fit(entries, RATES)
    assert fitted is not None
    assert fit(dict(reversed(entries.items())), RATES) is fitted
    assert fitted.predict(relu(5000), RATES) == fitted.predict(relu(5000), RATES)
    assert len(fitted.known) == 1
    entries[call_key(calls[0])] = Entry(Distribution.exactly(9.0), "Relu", features(calls[0]))
    assert fit(entries, RATES) is not fitted


@pytest.mark.usefixtures("quiet")
def test_the_budget_goes_to_what_takes_most_time(tmp_path: Path) -> None:
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))
    big, small = product(256, 256, 256), relu(8)
    seen: list[str] = []
    measure([small, big, small], [costs], 60.0, lambda _s, text: seen.append(text))
    assert [text.partition(" ")[0] for text in seen] == ["MatMul", "Relu"]
    assert costs.link().source == "measured"
    seen.clear()
    measure([small, big], [costs], 60.0, lambda _s, text: seen.append(text))
    assert seen == []
    measure([small, big], [costs], 0.0, lambda _s, text: seen.append(text), refresh=True)
    assert seen == []


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))

    def interrupt_the_second(_seconds: float, text: str) -> None:
        if text.startswith("Relu"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([product(64, 64, 64), relu(8)], [costs], 60.0, interrupt_the_second)
    kept = CostStore(SPEC, "1", tmp_path)
    assert kept.get(call_key(product(64, 64, 64))) is not None
    assert kept.get(call_key(relu(8))) is None


class Broken(ReferenceProcessor):
    """Promises everything and compiles nothing."""

    def compile(self, region: Region) -> Executable:
        raise ProcessorError("out of order")


def test_what_does_not_run_is_told_and_costs_its_roofline(tmp_path: Path) -> None:
    costs = ProcessorCosts(Broken(), RATES, CostStore(SPEC, "1", tmp_path))
    measure([relu(8)], [costs], 60.0, nothing)
    assert costs.failed == {call_key(relu(8)): "out of order", "link": "out of order"}
    assert costs.link().source == "rates"
    assert costs.cost(relu(8)).source == "roofline"
    assert math.isfinite(costs.cost(relu(8)).time.median_us)


class Changing(ReferenceProcessor):
    """Executes calls with code whose digest a test changes."""

    digest = "old"

    def code_of(self, call: OpCall) -> str:
        return self.digest


@pytest.mark.usefixtures("quiet")
def test_times_of_other_kernels_are_forgotten_and_measured_again(tmp_path: Path) -> None:
    processor = Changing()
    before = ProcessorCosts(processor, RATES, CostStore(SPEC, "1", tmp_path))
    measure([relu(8), relu(9)], [before], 60.0, nothing)
    assert before.cost(relu(8)).source == "measured"
    processor.digest = "new"
    after = ProcessorCosts(processor, RATES, CostStore(SPEC, "1", tmp_path))
    assert after.cost(relu(8)).source == "roofline"
    assert after.store.get(call_key(relu(8))) is None
    seen: list[str] = []
    measure([relu(8), relu(9)], [after], 60.0, lambda _s, text: seen.append(text))
    assert seen == ["Relu on reference"] * 2
    kept = CostStore(SPEC, "1", tmp_path)
    assert {kept.entries[call_key(relu(n))].code for n in (8, 9)} == {"new"}


def test_a_forgotten_time_does_not_come_back_from_the_file(tmp_path: Path) -> None:
    store = CostStore(SPEC, "1", tmp_path)
    store.put("a", Entry(Distribution.exactly(1.0)))
    store.save()
    store.drop("a")
    store.save()
    assert CostStore(SPEC, "1", tmp_path).entries == {}


def test_the_code_of_a_reference_is_its_module() -> None:
    reference = ReferenceProcessor()
    assert reference.code_of(relu(8)) == reference.code_of(relu(9)) != ""
    assert reference.code_of(relu(8)) != reference.code_of(product(8, 8, 8))
