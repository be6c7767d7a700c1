"""The benchmarks' arithmetic and fairness: what counts, who is a peer, what a file keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bench import page, picture, record
from bench.agreement import difference, dissenters, yardstick
from bench.budget import Budget
from bench.case import BEST, MEDIAN, Case, Suite
from bench.contenders import HALF, SINGLE, Contender, ours, peers, together
from bench.operands import operand
from bench.peers.coexec_ops import OperatorCall
from bench.protocol import PeerFailed
from bench.show import case_lines
from bench.speed_targets import launches, ratios, streaming, training
from bench.statistics import geomean, ratio, reduced
from bench.suites import SUITES
from bench.turns import Row, run_case
from bench.worker import Server, timed_calls
from coexec.base.errors import SaveError

OURS = Contender("coexec", "m", ours=True, kinds=("",))
PEER, OTHER = Contender("peer", "m", kinds=("",)), Contender("other", "m", kinds=("",))
CASE = Case("case", "gemm", {}, "group", flop=2_000_000_000, bytes=10**9)
SUITE = Suite("suite", "Suite", (CASE,), pause=0.0, roof="flop")


class FakeWorker:
    """Answers what a worker would: results, and times from a list, one a turn."""

    def __init__(
        self, result: float, times: list[float], error: str = "", others: Sequence[float] = ()
    ) -> None:
        self.result, self.times, self.error = result, times, error
        self.others = list(others)
        self.asked: list[str] = []

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(request["do"])
        if self.error and request["do"] == "prepare":
            raise PeerFailed(self.error)
        if request["do"] == "outputs":
            np.savez(request["path"], np.full(4, self.result))
        if request["do"] == "time":
            others = self.others.pop(0) if self.others else 0.0
            return {"calls": [self.times.pop(0)], "facts": {}, "passed": 1.0, "others": others}
        return {}


class FakeWorkers:
    """A pool of fake workers by contender's name."""

    def __init__(self, **workers: FakeWorker) -> None:
        self.workers = workers
        self.order: list[str] = []

    def worker(self, contender: Contender) -> FakeWorker:
        self.order.append(contender.name)
        return self.workers[contender.name]

    def discard(self, contender: Contender) -> None: ...


def rows_of(**workers: FakeWorker) -> list[Row]:
    everybody = [c for c in (OURS, PEER, OTHER) if c.name in workers]
    return run_case(SUITE, CASE, everybody, FakeWorkers(**workers), turns=2)


def test_turns_beside_other_processes_are_made_again_some_times() -> None:
    """Of four turns behind the one that warms up, three were disturbed, and two may be repeated."""
    times, others = [9.0, 1.0, 5.0, 6.0, 7.0], [1.0, 0.0, 0.9, 0.9, 0.9]
    peer = FakeWorker(1.0, times, others=others)
    suite = replace(SUITE, repeats=2)
    (row,) = run_case(suite, CASE, [PEER], FakeWorkers(peer=peer), turns=2)
    assert row.turns == [1.0, 7.0]


def test_what_is_to_be_measured_beside_others_is_not_repeated() -> None:
    peer = FakeWorker(1.0, [9.0, 1.0, 5.0], others=[1.0, 1.0, 1.0])
    suite, case = replace(SUITE, repeats=2), replace(CASE, beside=True)
    (row,) = run_case(suite, case, [PEER], FakeWorkers(peer=peer), turns=2)
    assert row.turns == [1.0, 5.0]


def test_median_and_best_of_turns() -> None:
    assert reduced([3.0, 1.0, 2.0], MEDIAN) == 2.0
    assert reduced([3.0, 1.0, 2.0], BEST) == 1.0


def test_ratio_pairs_turns_and_shows_their_extremes() -> None:
    found = ratio([2.0, 3.0, 8.0], [1.0, 2.0, 4.0], MEDIAN)
    assert (found.value, found.low, found.high) == (2.0, 1.5, 2.0)
    assert ratio([2.0, 3.0], [1.0, 4.0], BEST).value == 2.0


def test_geometric_mean() -> None:
    assert geomean([0.5, 2.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="nothing"):
        geomean([])


def test_results_of_another_shape_size_or_value_differ() -> None:
    a = [np.ones(3)]
    assert not difference(a, [np.ones(3) * 1.0001], 1e-3)
    assert "off by" in difference(a, [np.ones(3) * 1.1], 1e-3)
    assert "shape" in difference(a, [np.ones((3, 1))], 1e-3)
    assert "instead of" in difference(a, [], 1e-3)
    assert "not finite" in difference(a, [np.full(3, np.nan)], 1e-3)


def test_the_majority_is_the_yardstick_and_the_first_among_equals() -> None:
    results = {"a": [np.ones(2)], "b": [np.zeros(2)], "c": [np.zeros(2)]}
    assert yardstick(results, 1e-3) == "b"
    assert list(dissenters(results, "b", 1e-3)) == ["a"]
    assert yardstick({"a": [np.ones(2)], "b": [np.zeros(2)]}, 1e-3) == "a"


def test_a_wrong_peer_is_no_peer() -> None:
    rows = rows_of(
        coexec=FakeWorker(1.0, [9.0, 2.0, 2.0]),
        peer=FakeWorker(1.0, [9.0, 4.0, 4.0]),
        other=FakeWorker(7.0, [0.1, 0.1, 0.1]),
    )
    found = record.case_record(SUITE, CASE, rows)
    by_name = {row["peer"]: row for row in found["rows"]}
    assert "not peer's result" in by_name["other"]["error"]
    assert "seconds" not in by_name["other"]
    assert by_name["coexec"]["ratio"]["value"] == 0.5
    assert by_name["coexec"]["ratio"]["to"] == "peer"


def test_our_own_wrong_result_is_refused_too() -> None:
    rows = rows_of(coexec=FakeWorker(7.0, []), peer=FakeWorker(1.0, [9.0, 4.0, 4.0]))
    assert "not peer's result" in rows[0].error
    assert not rows[0].turns


def test_turns_alternate_and_the_first_does_not_count() -> None:
    a, b = FakeWorker(1.0, [9.0, 1.0, 2.0]), FakeWorker(1.0, [9.0, 3.0, 4.0])
    workers = FakeWorkers(coexec=a, peer=b)
    rows = run_case(SUITE, CASE, [OURS, PEER], workers, turns=2)
    assert [row.turns for row in rows] == [[1.0, 2.0], [3.0, 4.0]]
    assert workers.order[4:10] == ["coexec", "peer"] * 3


@pytest.mark.parametrize(("us", "turns"), [(1.0, 6), (1e4, 2)])
def test_short_calls_take_more_turns_where_a_suite_wants_that(us: float, turns: int) -> None:
    suite = replace(SUITE, short=3)
    workers = [FakeWorker(1.0, [us * 1e-6] * 20), FakeWorker(1.0, [1e-6] * 20)]
    both = FakeWorkers(coexec=workers[0], peer=workers[1])
    told: list[str] = []
    rows = run_case(suite, CASE, [OURS, PEER], both, turns=2, observe=told.append)
    assert [len(row.turns) for row in rows] == [turns, turns]
    assert told[-1] == f"turn {turns} of {turns}"


def test_a_peer_that_fails_is_a_row_with_the_reason() -> None:
    rows = rows_of(coexec=FakeWorker(1.0, [9.0, 1.0, 1.0]), peer=FakeWorker(1.0, [], "no such op"))
    assert rows[1].error == "no such op"
    found = record.case_record(SUITE, CASE, rows)
    assert "ratio" not in found["rows"][0]
    assert case_lines(found, "flop", {})[1] == ("peer", "-", "", "no such op")


def test_after_the_deadline_only_the_turns_needed_for_a_spread_are_run() -> None:
    worker = FakeWorker(1.0, [1.0] * 20)
    (row,) = run_case(
        SUITE, CASE, [OURS], FakeWorkers(coexec=worker), turns=9, deadline=time.monotonic()
    )
    assert len(row.turns) == SUITE.fewest < 9


def test_sixteen_bits_are_held_against_sixteen_bits_with_their_own_tolerance() -> None:
    mixed = Contender("mixed", "m", ours=True, precision=HALF, kinds=("",))
    bf16 = Contender("bf16", "m", precision=HALF, kinds=("",))
    workers = FakeWorkers(
        coexec=FakeWorker(1.0, [9.0, 4.0, 4.0]),
        peer=FakeWorker(1.0, [9.0, 2.0, 2.0]),
        mixed=FakeWorker(1.02, [9.0, 3.0, 3.0]),
        bf16=FakeWorker(0.98, [9.0, 1.0, 1.0]),
    )
    rows = run_case(SUITE, CASE, [OURS, mixed, PEER, bf16], workers, turns=2)
    assert not any(row.error for row in rows)
    found = {row["peer"]: row for row in record.case_record(SUITE, CASE, rows)["rows"]}
    assert (found["coexec"]["ratio"]["to"], found["coexec"]["ratio"]["value"]) == ("peer", 2.0)
    assert (found["mixed"]["ratio"]["to"], found["mixed"]["ratio"]["value"]) == ("bf16", 3.0)


def test_rates_and_their_share_of_the_measured_peak() -> None:
    rows = rows_of(
        coexec=FakeWorker(1.0, [9.0, 0.02, 0.02]), peer=FakeWorker(1.0, [9.0, 0.04, 0.04])
    )
    found = record.case_record(SUITE, CASE, rows)
    assert found["rows"][0]["gflops"] == pytest.approx(100)
    line = case_lines(found, "flop", {"coexec": {"peak_gflops": 200.0}})[0]
    assert line == ("coexec", "20 ms", "100 GFLOP/s (50%)", "0.50 (0.50..0.50)")


def test_a_budget_shares_what_is_left_by_work() -> None:
    small, large = Case("small", "k", {}), Case("large", "k", {}, flop=12 * 10**9)
    suite = Suite("suite", "Suite", (small, large))
    budget = Budget.of(100.0, {"suite": (suite, suite.cases)})
    assert budget.deadline("suite", "small") - time.monotonic() == pytest.approx(20, abs=1)
    assert budget.deadline("suite", "large") - time.monotonic() == pytest.approx(100, abs=1)
    assert Budget(-1.0, {}).left < 0


def record_of(name: str, value: float) -> record.Record:
    rows = rows_of(
        coexec=FakeWorker(1.0, [9.0, value, value]), peer=FakeWorker(1.0, [9.0, 1.0, 1.0])
    )
    case = record.case_record(SUITE, CASE, rows) | {"name": name}
    return record.suite_record(SUITE, [case], {"limits": {}, "contenders": {"peer": {}}})


def test_new_cases_take_the_place_of_old_ones_and_leave_the_rest() -> None:
    machine = {"cpu": "x"}
    first = record.merged(None, machine, {"suite": record_of("a", 2.0)})
    second = record.merged(first, machine, {"suite": record_of("b", 8.0)})
    third = record.merged(second, machine, {"suite": record_of("a", 0.5)})
    suite = third["suites"]["suite"]
    assert [case["name"] for case in suite["cases"]] == ["a", "b"]
    assert suite["summary"][0]["geomean"] == pytest.approx(2.0)
    assert suite["summary"][0]["worst_case"] == "b"


def test_a_record_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results" / "machine.json"
    whole = record.merged(None, {"cpu": "x"}, {})
    record.write(path, whole)
    assert record.read(path) == whole

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(SaveError, match="disk full"):
        record.write(path, record.merged(None, {"cpu": "y"}, {}))
    assert record.read(path) == whole
    assert [file.name for file in path.parent.iterdir()] == ["machine.json"]


def test_a_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({"schema": 0}))
    with pytest.raises(record.RecordError, match="measure again"):
        record.read(path)


def test_a_worker_answers_errors_and_times_calls() -> None:
    class Job:
        def __init__(self) -> None:
            self.calls = 0

        def run(self, count: int) -> None:
            self.calls += count
            time.sleep(0.001 * count)

        def outputs(self) -> list[Any]:
            return [np.ones(2)]

        def facts(self) -> dict[str, Any]:
            return {"calls": self.calls}

    class Peer:
        def describe(self) -> dict[str, Any]:
            return {"library": "fake"}

        def measure(self) -> dict[str, Any]:
            raise NotImplementedError("no device")

        def prepare(self, case: Mapping[str, Any]) -> Job:
            return Job()

    server = Server(Peer())
    assert server.answer({"do": "describe"}) == {"ok": {"library": "fake"}}
    assert server.answer({"do": "measure"}) == {"error": "NotImplementedError: no device"}
    assert "no case" in server.answer({"do": "time", "seconds": 0.01})["error"]
    server.answer({"do": "prepare", "case": {}})
    assert server.answer({"do": "time", "seconds": 0.01})["ok"]["calls"]
    job = Job()
    assert min(timed_calls(job, 0.01, burst=2)) >= 0.001
    assert job.calls % 2 == 0


def test_updates_are_timed_in_the_place_of_their_states_as_in_training() -> None:
    states = {name: operand((3,)) for name in ("x", "g", "m")}
    call = OperatorCall("reference", "update.momentum", {"operands": states})
    (_, executable, buffers), *rest = call.resident.launches
    place = dict(zip(executable.arguments, buffers, strict=True))
    assert not rest
    assert place["y0"] is place["x"]
    assert place["y1"] is place["m"]


def test_every_case_has_a_name_of_its_own_and_somebody_beside_us() -> None:
    both = together(["opencl:intel", "opencl:pocl"])
    everybody = [*peers(("torch", "onnxruntime"), ()), *(c for c in both if not c.ours)]
    for suite in SUITES.values():
        names = [case.name for case in suite.cases]
        assert len(set(names)) == len(names)
        assert any(case.quick for case in suite.cases)
        for case in suite.cases:
            taking = [c for c in everybody if c.takes(case.kind, case.spec)]
            assert taking or suite.name in ("launch", "profiling", "planning")
    assert [c.name for c in ours(["opencl:x"])] == ["coexec x", "coexec x mixed"]


def test_the_page_shows_ratio_rate_machine_and_what_was_refused() -> None:
    rows = rows_of(
        coexec=FakeWorker(1.0, [9.0, 0.02, 0.02]),
        peer=FakeWorker(1.0, [9.0, 0.04, 0.04]),
        other=FakeWorker(7.0, []),
    )
    rows[0].facts["planned_bytes"] = 3_000_000
    who = {"peer": {"library": "Peer", "version": "1.2-abc"}}
    about = {"limits": {"coexec": {"peak_gflops": 200.0}}, "contenders": who}
    suite = record.suite_record(SUITE, [record.case_record(SUITE, CASE, rows)], about)
    machine = {"cpu": "A CPU", "threads": 2, "system": "Linux"}
    text = page.page(record.merged(None, machine, {"suite": suite}), "x.json", "x.svg")
    assert "| case | coexec | 20 ms | 100 GFLOP/s (50%) | peer 40 ms | 0.50 (0.50..0.50) |" in text
    assert "| coexec | all | 1 | 0.50 | 0.50 | case |" in text
    assert "A CPU, 2 threads, Linux; Peer 1.2." in text
    assert "| case | coexec | 3 MB |" in text


def test_the_picture_has_a_bar_per_suite_that_ends_at_the_axis_end() -> None:
    found = record.merged(None, {}, {"suite": record_of("a", 2.0), "more": record_of("b", 99.0)})
    drawn = ET.fromstring(picture.picture(found))
    widths = [float(r.attrib["width"]) for r in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == [
        pytest.approx(picture.position(2.0) - picture.position(1.0), abs=0.1),
        pytest.approx(picture.position(4.0) - picture.position(1.0), abs=0.1),
    ]


def test_targets_of_speed_are_computed_from_the_rows() -> None:
    def row(peer: str, seconds: float, **more: Any) -> dict[str, Any]:
        base = {"peer": peer, "ours": peer.startswith("coexec"), "precision": SINGLE}
        return base | {"seconds": seconds, "facts": {}} | more

    def suite(*cases: list[dict[str, Any]]) -> dict[str, Any]:
        named = [{"name": f"ResNet-18 {i}", "rows": rows} for i, rows in enumerate(cases)]
        limits = {"coexec intel": {"bandwidth_gbps": 40.0, "launch_us": 4.0}}
        return {"cases": named, "limits": limits}

    beside = suite(*([row("coexec intel", 1.0, ratio={"value": v})] for v in (0.5, 2.0)))
    (line,) = ratios({"coexec intel": 1.0, "coexec pocl": 1.05})(beside)
    assert line[1:] == ("geometric mean at most 1", "1.00; 1 of 2 above 1")

    (line,) = streaming(suite(*([row("coexec intel", 1.0, gbps=v)] for v in (10.0, 30.0))))
    assert line[1:] == ("at least 75 %", "1 of 2 reach it, least 25 % (ResNet-18 0)")

    (line,) = launches(suite([row("coexec intel", 1.0, facts={"host_us": 6.0})]))
    assert line[2] == "6.0 to 6.0 us, of which the driver's enqueueing of an empty kernel 4.0 us"

    step = suite(
        [
            row("coexec intel", 1.0, facts={"planned_bytes": 10, "start_warm_s": 2.5}),
            row("PyTorch eager", 4.0, facts={"grown_bytes": 40}),
            row("PyTorch compile", 2.0, facts={"grown_bytes": 50}),
            row("PyTorch bf16 autocast", 0.1, precision=HALF),
            row("tinygrad pocl", 8.0),
            row("tinygrad intel", 16.0),
        ]
    )
    assert [line[2] for line in training(step)] == [
        "0.50",
        "0.06",
        "0.25, most 0.25 (ResNet-18 0)",
        "2.5 s",
    ]
