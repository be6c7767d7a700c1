"""Every rule of advice has a trace that fires it and one that does not, and quotes its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coexec.core.events import DISPATCH, LAYOUT, RUN, SYNC, Event, Trace
from coexec.core.machine import Link, Rates
from coexec.core.plan import Refusal
from coexec.core.processor import ProcessorSpec
from coexec.report import advice
from coexec.report.advice import Advice, Findings, Rule
from coexec.report.attribution import attribute
from coexec.report.verdict import verdict
from tests.synthetic import RATES, TRACK, copy, host, kernel

GPU = ProcessorSpec(TRACK, "gpu", "a GPU", compute_units=4)
OTHER = "other"
FAST_CPU = Rates({"float32": 1000.0}, 100.0, 1.0, 1.0, {"write": Link(1.0, 10.0)})


def findings(*events: Event, **changes: object) -> Findings:
    """Of a trace with a run of 1000 us around ``events``."""
    trace = Trace([host(RUN, 0, 1000), *events])
    base = Findings(
        attribution=attribute(trace, {TRACK: RATES, OTHER: RATES}),
        specs={TRACK: GPU, OTHER: replace(GPU, name=OTHER)},
        rates={TRACK: RATES, OTHER: RATES},
        first=TRACK,
        batch_size=8,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def busy(us: float = 900.0) -> Event:
    """A large kernel at its roofline: nothing to complain about."""
    return kernel("Conv", 50, us, round(us * 100_000), 1000, items=1 << 20)


def elementwise(count: int, us: float, **changes: object) -> list[Event]:
    """Relu kernels in a row at the bandwidth of the device."""
    moved = round(us * 10_000)
    return [kernel(f"Relu_{i}", i * us, us, 10, moved, operator="Relu.unary") for i in range(count)]


REFUSAL = Refusal("pick", "TopK", TRACK, "no kernel")

CASES: dict[str, tuple[Rule, Callable[[], Findings], Callable[[], Findings], str]] = {
    "transfer latency": (
        advice.transfer_latency,
        lambda: findings(*(copy(i * 100, 60, 1000) for i in range(8))),
        # As long, but their bytes explain it: 60 us at 5 GB/s.
        lambda: findings(*(copy(i * 100, 60, 300_000) for i in range(8))),
        "8 copies",
    ),
    "transfer bandwidth": (
        advice.transfer_bandwidth,
        lambda: findings(copy(0, 400, 2_000_000)),
        lambda: findings(copy(0, 400, 1000)),
        "2.0 MB",
    ),
    "low occupancy": (
        advice.low_occupancy,
        lambda: findings(kernel("Gemm", 0, 800, 10, 10, items=64)),
        lambda: findings(kernel("Gemm", 0, 800, 10, 10, items=4096)),
        "fewer than 1024 work-items",
    ),
    "fallback": (
        advice.fallback_cost,
        lambda: findings(
            busy(500), kernel("TopK", 600, 200, 1, 1, track=OTHER), refusals=(REFUSAL,)
        ),
        lambda: findings(busy(500), kernel("TopK", 600, 2, 1, 1, track=OTHER), refusals=(REFUSAL,)),
        "pick: no kernel",
    ),
    "chain": (
        advice.fusible_chain,
        lambda: findings(*elementwise(5, 100)),
        lambda: findings(*elementwise(2, 400)),
        "Relu -> Relu -> Relu",
    ),
    "small batch": (
        advice.small_batch,
        lambda: findings(
            host(DISPATCH, 0, 900), *(kernel(f"n{i}", i * 100, 20, 1, 1) for i in range(8))
        ),
        lambda: findings(host(DISPATCH, 0, 900), busy()),
        "batch 8",
    ),
    "CPU": (
        advice.cpu_is_faster,
        lambda: findings(kernel("Gemm", 0, 900, 10_000_000, 1000), cpu=FAST_CPU),
        lambda: findings(busy(), cpu=replace(FAST_CPU, peak_gflops={"float32": 50.0})),
        "Gemm 0.9 ms (CPU 0.02 ms)",
    ),
    "poor kernel": (
        advice.poor_kernel,
        lambda: findings(kernel("Conv", 0, 900, 9_000_000, 1000)),
        lambda: findings(busy()),
        "reaches 10 % of the roofline",
    ),
    "layout": (
        advice.layout_cost,
        lambda: findings(busy(500), kernel("pack", 600, 300, kind=LAYOUT)),
        lambda: findings(busy(500), kernel("pack", 600, 30, kind=LAYOUT)),
        "0.3 ms, 30 %",
    ),
    "waiting": (
        advice.waiting,
        lambda: findings(busy(400), host(SYNC, 500, 400)),
        lambda: findings(busy(900), host(SYNC, 500, 500)),
        "idle for 0.4 ms",
    ),
    "host": (
        advice.host_bound,
        lambda: findings(busy(400)),
        lambda: findings(busy(930)),
        "60 %",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_on_its_evidence_and_quotes_it(name: str) -> None:
    rule, firing, _, quoted = CASES[name]
    found = rule(firing())
    assert found is not None
    assert quoted in found.evidence
    assert found.saving_ns > 0
    assert found.evidence.endswith(".")
    assert found.suggestion[0].isupper()
    assert found.suggestion.endswith(".")


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_silent_without_its_evidence(name: str) -> None:
    rule, _, silent, _ = CASES[name]
    assert rule(silent()) is None


def test_evidence_counts_one_as_one_and_small_copies_in_bytes() -> None:
    one = advice.small_batch(findings(host(DISPATCH, 0, 900), kernel("n", 100, 20, 1, 1)))
    assert one is not None
    assert one.evidence.startswith("1 kernel of ")
    small = advice.transfer_latency(findings(*(copy(i * 100, 60, 4) for i in range(8))))
    assert small is not None
    assert small.evidence.endswith("for 4 B per copy.")


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES.values()} == set(advice.RULES)


def test_a_cpu_is_not_told_that_the_cpu_is_faster() -> None:
    specs = {TRACK: replace(GPU, kind="cpu")}
    slow = kernel("Gemm", 0, 900, 10_000_000, 1000)
    assert advice.cpu_is_faster(findings(slow, cpu=FAST_CPU, specs=specs)) is None


def test_what_another_processor_refused_is_no_fallback_of_this_one() -> None:
    by_npu = replace(REFUSAL, processor="npu")
    elsewhere = kernel("TopK", 600, 200, 1, 1, track=OTHER)
    assert advice.fallback_cost(findings(busy(500), elsewhere, refusals=(by_npu,))) is None


def test_a_good_run_gets_no_advice() -> None:
    assert advice.advise(findings(busy(990))) == []


def test_advice_is_sorted_by_what_it_saves() -> None:
    found = advice.advise(
        findings(*(copy(i * 100, 60, 1000) for i in range(5)), kernel("Conv", 500, 450, 1000, 100))
    )
    assert len(found) >= 2
    assert [each.saving_ns for each in found] == sorted(
        (each.saving_ns for each in found), reverse=True
    )


def test_the_verdict_names_shares_and_the_worst_node() -> None:
    worst = kernel(
        "Conv_grad",
        50,
        800,
        16_000_000,
        1000,
        operator="coexec::ConvWeightGrad.kernel",
        phase="backward",
        source="Conv_12",
    )
    text = verdict(findings(worst), [Advice("The batch is small", "", "")], "training")
    assert text.startswith(f"80 % of a training step on {TRACK} (1 ms) is compute, 20 % idle")
    assert "Conv_12's weight gradient" in text
    assert "20 % of the roofline" in text
    assert text.endswith(". First advice: The batch is small.")


def test_the_verdict_of_a_run_that_launches_nothing() -> None:
    assert "launches nothing" in verdict(findings(), [], "inference")
