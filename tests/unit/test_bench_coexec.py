"""The suite of two processors: who takes part, what it set out to reach, what is done to them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.__main__ import chosen_suites
from bench.coexec_targets import back, coexecution
from bench.contenders import on_both_cores, ours, together
from bench.peers.coexec_adaptive import Gone, Plug
from bench.peers.coexec_both import open_peer
from bench.peers.coexec_ratio import Ratio, in_turns
from bench.peers.coexec_together import ROLES
from bench.record import Record
from bench.suites import SUITES
from coexec import zoo
from coexec.core.types import OpCall, Region, TensorType
from coexec.frontend.export import save_model
from coexec.processors.reference.processor import ReferenceProcessor


def test_cases_of_two_processors_are_for_their_contenders_only() -> None:
    case = next(c for c in SUITES["coexec"].cases if c.kind == "coexec.intel.layer")
    assert not any(c.takes(case.kind, case.spec) for c in ours(["opencl:intel"]))
    assert not any(c.takes(case.kind, case.spec) for c in together(["opencl:pocl"]))
    taking = [c.name for c in together(["opencl:intel"]) if c.takes(case.kind, case.spec)]
    assert taking == [
        *("first alone", "second alone"),
        *("operator split", "auto", "best ratio found"),
    ]
    step = next(c for c in SUITES["coexec"].cases if c.kind == "coexec.equal.train")
    both = together(["opencl:intel", "opencl:pocl"])
    assert not any(c.takes(step.kind, step.spec) for c in together(["opencl:intel"]))
    training = [c.name for c in both if c.takes(step.kind, step.spec)]
    assert training == ["first alone", "second alone", "auto", "batch parallel"]
    assert "coexec" not in chosen_suites(["all"])
    assert chosen_suites(["coexec"]) == ["coexec"]


def layer_of(name: str, group: str, seconds: Mapping[str, float]) -> Record:
    """A case of two processors; plans predicted 10 % less than they took."""
    alone = ("one alone", "other alone")
    best = min(seconds[n] for n in alone)
    rows: list[dict[str, Any]] = [
        {"peer": peer, "ours": peer not in alone, "seconds": time, "turns": [time] * 3, "facts": {}}
        | ({"ratio": {"value": time / best}} if peer not in alone else {})
        for peer, time in seconds.items()
    ]
    rows[2]["facts"] = {"predicted_ms": 900 * rows[2]["seconds"]}
    return {"name": name, "group": group, "rows": rows}


def test_targets_of_coexecution_are_computed_from_the_rows() -> None:
    names = ("one alone", "other alone", "operator split", "auto", "best ratio found")
    times = {"a": (4.0, 2.0, 1.6, 2.0, 1.5), "b": (2.0, 2.0, 1.0, 1.0, 1.0)}
    cases = [
        layer_of(name, "layers, x", dict(zip(names, each, strict=True)))
        for name, each in times.items()
    ]
    lines = {work: measured for work, _, measured in coexecution({"cases": cases})}
    assert lines == {
        "layers, x: operator split against the best processor alone": (
            "geometric mean 1.58x, least 1.25x (a)"
        ),
        "layers, x: of the speedup that the rates of both allow": (
            "geometric mean 91%, least 83% (a)"
        ),
        "layers, x: speed of operator split against the best ratio found": (
            "geometric mean 97%, least 94% (a)"
        ),
        "predicted makespan against measured": "median 10.0% of 2 plans",
        "auto's plan behind the best plan that was run": "median 12.5%, most 25.0% (a)",
    }


def test_a_search_is_compared_turn_by_turn() -> None:
    """Its turns were as fast as those beside them, and it is not said to be twice as fast."""
    of = layer_of("a", "layers, x", {"one alone": 4.0, "other alone": 4.0, "operator split": 2.0})
    for peer, turns in (("operator split", [1.0, 2.0, 4.0]), ("best ratio found", [1.0, 2.0, 4.4])):
        of["rows"] = [row for row in of["rows"] if row["peer"] != peer]
        row = {"peer": peer, "ours": True, "seconds": min(turns), "turns": turns, "facts": {}}
        of["rows"].append(row | {"ratio": {"value": 0.5}})
    told = {work: measured for work, _, measured in coexecution({"cases": [of]})}
    work = "layers, x: speed of operator split against the best ratio found"
    assert told[work] == "geometric mean 100%, least 100% (a)"


def test_the_best_ratio_is_who_is_fastest_in_turns_and_not_who_had_one_lucky_run() -> None:
    lucky, steady = Ratio(0, 8), Ratio(0, 16)
    times = {lucky: itertools.chain([1.0], itertools.repeat(9.0)), steady: itertools.repeat(5.0)}
    assert in_turns(times, lambda runs: next(iter(runs))) == steady


def test_a_runtime_on_both_cores_is_what_plans_are_held_against_and_no_plan() -> None:
    times = {"one alone": 2.0, "other alone": 2.0, "operator split": 1.25, "auto": 1.25}
    both = {"first on both cores": 1.0, "second on both cores": 1.5}
    lines = coexecution({"cases": [layer_of("a", "layers, x", times | both)]})
    told = {work: measured for work, _, measured in lines}
    work = "layers, x: speed of operator split against the faster runtime on both cores"
    assert told[work] == "geometric mean 80%, least 80% (a)"
    assert told["auto's plan behind the best plan that was run"].startswith("median 0.0%")


def test_both_cores_take_part_where_plans_are_compared() -> None:
    everybody = on_both_cores(["opencl:intel", "opencl:pocl"])
    assert {c.process for c in everybody} == {"both cores"}
    for case in SUITES["coexec"].cases:
        taking = [c.role for c in everybody if c.takes(case.kind, case.spec)]
        compared = case.kind.rpartition(".")[2] in ("layer", "model", "train")
        assert taking == (["first", "second"] if compared else [])
        assert len(case.spec["on_both_cores"]) == 2


@pytest.mark.parametrize("trains", [False, True])
def test_a_runtime_on_both_cores_computes_without_a_plan(tmp_path: Path, trains: bool) -> None:
    save_model(zoo.build("digits_cnn", batch=4), tmp_path / "model.onnx")
    x = np.ones((4, 1, 8, 8), np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.zeros(4, np.int64))
    spec: dict[str, Any] = {
        "onnx": str(tmp_path / "model.onnx"),
        "data": str(tmp_path / "data.npz"),
    }
    spec |= {"on_both_cores": ["reference", "opencl:pocl"], "trains": trains}
    job = open_peer({}).prepare({"spec": spec, "kind": "coexec.x.model", "role": "second"})
    job.run(1)
    (found,) = job.outputs()
    assert np.isfinite(found).all()


def row(peer: str, seconds: float, **facts: Any) -> dict[str, Any]:
    base = {"peer": peer, "ours": True, "seconds": seconds, "facts": facts}
    return base | {"ratio": {"value": seconds}}


def test_a_stream_counts_by_the_better_way() -> None:
    times = {"first alone": 4.0, "second alone": 3.0, "a copy on each": 2.0, "pipeline": 1.5}
    case = {"name": "s", "group": "streams, x", "rows": [row(*each) for each in times.items()]}
    ((work, _, measured),) = coexecution({"cases": [case]})
    assert "streams, x: the better of" in work
    assert measured == "geometric mean 2.00x, least 2.00x (s)"


def test_steps_are_back_once_they_stay_near_the_best_plan() -> None:
    assert back([9.0, 9.0, 1.0, 9.0, 9.0, 1.0, 1.1, 1.0], 1.0) == 5
    assert back([1.0, 1.0, 1.0], 1.0) == 0
    assert back([9.0] * 20, 1.0) is None


def test_what_was_withstood_is_told_with_its_figures() -> None:
    steps = [3.0e3, 3.0e3, *[1.0e3] * 18]
    adapted = row(
        "adapted to the load",
        1.05,
        steps_ms=steps,
        adaptations=[[-9, "kept", ""], [2, "replanned", "x"]],
    )
    best = row("best plan found for the load", 1.0, plan="only a")
    loaded = {"name": "load", "group": "g", "rows": [adapted, best]}
    facts = {"steps": 10, "steps_wanted": 10, "lost_at": [5], "lost_step_s": 1.5}
    without = row("without it from then on", 1.0)
    taken = {"name": "taken", "group": "h", "rows": [row("one taken away", 1.0, **facts), without]}
    told = {work: measured for work, _, measured in coexecution({"cases": [loaded, taken]})}
    assert told["load"] == (
        "after 2 steps; then 1.05 of the time of the best plan (only a); replanned after 2"
    )
    assert "10 of 10 steps" in told["taken"]


@pytest.mark.parametrize(
    ("taken", "without", "said"),
    [
        ({"error": "off by 0.5"}, {}, "one taken away: off by 0.5"),
        ({"lost_at": [5]}, {"error": "no"}, "without it from then on: no"),
        ({"lost_at": []}, {}, "nobody noticed that it was gone"),
        ({"lost_at": [5]}, None, "held against no other training"),
    ],
)
def test_a_processor_was_lost_well_only_if_that_was_noticed_and_held_against_another_training(
    taken: dict[str, Any], without: dict[str, Any] | None, said: str
) -> None:
    rows = [{"peer": "one taken away", "facts": taken, **taken}]
    rows += [] if without is None else [{"peer": "without it from then on", **without}]
    ((_, _, measured),) = coexecution({"cases": [{"name": "t", "group": "h", "rows": rows}]})
    assert measured == said


def test_a_training_that_never_had_the_processor_goes_before_it_is_taken_away() -> None:
    roles = [each.name for each in together(["opencl:pocl", "opencl:intel"])]
    assert roles.index("without it from then on") < roles.index("one taken away")


def test_a_processor_that_was_taken_away_does_nothing_any_more() -> None:
    processor = ReferenceProcessor()
    kind = TensorType((2,), np.dtype(np.float32))
    executable = processor.compile(Region.alone(OpCall("Neg", (kind,), {}, (kind,), version=13)))
    buffers = [processor.alloc(kind.nbytes) for _ in range(2)]
    plug = Plug(processor)
    processor.submit(executable, buffers, ())
    plug.pull()
    processor.submit(executable, buffers, ())
    processor.alloc(8)
    for _ in range(2):
        with pytest.raises(Gone, match="taken away"):
            processor.submit(executable, buffers, ())
    with pytest.raises(Gone):
        processor.alloc(8)


def test_regions_that_are_submitted_again_fail_on_a_processor_that_was_taken_away() -> None:
    processor, begun = ReferenceProcessor(), []
    setattr(processor, "again", lambda *_: lambda: begun.append(1))  # noqa: B010
    plug = Plug(processor)
    submit = processor.again(object(), [])  # type: ignore[arg-type]
    assert submit is not None
    submit()
    plug.pull()
    submit()
    with pytest.raises(Gone, match="taken away"):
        submit()
    assert len(begun) == 2


def test_every_case_of_two_processors_has_roles_that_can_be_prepared() -> None:
    both = together(["opencl:intel", "opencl:pocl"])
    assert {contender.process for contender in both} == {"together"}
    for case in SUITES["coexec"].cases:
        roles = [c.role for c in both if c.takes(case.kind, case.spec)]
        assert case.kind.rpartition(".")[2] in ROLES
        assert len(set(roles)) == len(roles) > 1
        assert "trains" in case.spec or case.spec["input"]
