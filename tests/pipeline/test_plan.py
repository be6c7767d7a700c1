"""``coexec plan`` on real processors: what it says, saves, and that its plans run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from coexec.api import compile as compile_model
from coexec.api import load, open_all
from coexec.core.machine import Link, Rates
from coexec.ops.builder import PHASE
from coexec.placement.policies.table import NAMES
from coexec.placement.save import load_plan
from coexec.planning.planner import PlanOptions, plan_inference
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from tests.known_costs import know
from tests.pipeline.command import coexec, failed
from tests.pipeline.small import CLASSES, FEATURES, write_network

TWO = ("--processors", "opencl,reference")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def known_rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Limits made up: measuring them takes seconds, and other tests do."""
    links = {"write": Link(10.0, 10.0), "read": Link(10.0, 10.0)}
    rates = Rates({"float32": 50.0}, 10.0, 5.0, 10.0, links)
    know(monkeypatch, tmp_path / "costs", lambda _: rates)


def test_help_shows_an_example() -> None:
    assert "Example: coexec plan" in coexec("plan", "--help").out


def test_plan_for_inference_as_json(model: Path) -> None:
    record = coexec("plan", model, *TWO, "--batch-size", "4", "--policy", "heft", "--json").record
    assert record["policy"] == "heft"
    assert 0 < record["makespan_p10_ms"] <= record["makespan_p90_ms"]
    assert set(record["sources"]) <= {"measured", "view"}
    assert sum(record["sources"].values()) == len(record["nodes"])
    assert [each["makespan_ms"] for each in record["policies"]] == sorted(
        each["makespan_ms"] for each in record["policies"]
    )
    assert {each["policy"] for each in record["policies"]} | set(record["left_out"]) == {
        name for name in NAMES if name != "auto"
    }
    for node in record["nodes"]:
        assert node["processor"] in node["costs"]
        assert node["end_ms"] >= node["start_ms"] >= 0
        assert len(node["costs"]) == 2
    # The second time everything is known.
    again = coexec("plan", model, *TWO, "--batch-size", "4", "--budget", "0", "--json").record
    assert set(again["sources"]) <= {"measured", "view"}


@pytest.mark.usefixtures("known_rates")
def test_plans_of_a_training_step_that_are_run_and_shown_to_people(
    model: Path, tmp_path: Path
) -> None:
    done = coexec(
        *("plan", model, *TWO, "--batch-size", "4", "--train", "--budget", "0", "--explain"),
        *("--verify", "--save", tmp_path / "step.onnx"),
    )
    assert done.status == 0, done.err
    step, plan = load_plan(tmp_path / "step.onnx")
    assert set(plan.processors) == {node.name for node in step.graph}
    assert "optimizer" in {node.metadata_props.get(PHASE) for node in step.graph}
    for word in ("predicted", "timeline", "transfers", "single_best", "heft", "exact was left out"):
        assert word in done.out
    assert "Gemm" in done.out
    times = done.out[done.out.index("ms measured") :].splitlines()[1:]
    alone = [line.split() for line in times if line.startswith("only ")]
    assert [words[1].partition(":")[0] for words in alone] == ["opencl", "reference"]
    assert all(float(word) > 0 for words in alone for word in words[2:])


@pytest.mark.usefixtures("known_rates")
def test_a_saved_plan_is_an_onnx_model_with_its_devices(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.onnx"
    record = coexec("plan", model, *TWO, "--budget", "0", "--save", out, "--json").record
    onnx.checker.check_model(onnx.load(out), full_check=True)
    _, plan = load_plan(out)
    assert plan.policy == record["policy"]
    assert dict(plan.processors) == {n["node"]: n["processor"] for n in record["nodes"]}
    feeds = {"x": np.ones((1, FEATURES), np.float32)}
    expected = compile_model(load(model), ["reference"]).run(feeds)["y"]
    found = compile_model(load(out), ["reference"]).run(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.usefixtures("known_rates")
def test_auto_takes_the_fastest_of_the_plans_that_it_ran(model: Path) -> None:
    record = coexec("plan", model, *TWO, "--batch-size", "4", "--budget", "1s", "--json").record
    times = {run["plan"]: run["measured_ms"] for run in record["verified"]["runs"]}
    assert len(times) >= 2
    assert record["policy"] == record["verified"]["plan"]
    assert times[record["policy"]] <= 1.05 * min(times.values())
    plain = coexec("plan", model, *TWO, "--batch-size", "4", "--no-verify", "--json").record
    assert plain["verified"] is None


@pytest.mark.usefixtures("known_rates")
@pytest.mark.parametrize("policy", ["greedy", "heft"])
def test_a_plan_runs_and_gives_what_one_processor_gives(model: Path, policy: str) -> None:
    loaded = load(model, {"x": (4, FEATURES)})
    processors = open_all(["opencl", "reference"])
    feeds = {"x": np.random.default_rng(0).standard_normal((4, FEATURES)).astype(np.float32)}
    planning = plan_inference(loaded, feeds, processors, PlanOptions(policy, seconds=0))
    program = lower(planning.model.graph, Lowering(planning.plan, processors))
    (found,) = Executor(program, processors).run(feeds).values()
    expected = compile_model(loaded, ["reference"]).run(feeds)["y"]
    assert found.shape == (4, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--policy", "luck"], "--policy 'luck' is unknown"),
        (["--budget", "soon"], "--budget 'soon'"),
        (["--loss", "none"], "--loss 'none' is unknown"),
        (["--save", "/nowhere/plan.onnx"], "--save"),
        (["--verify", "--policy", "heft"], "--verify needs --policy auto or all"),
        (["--verify", "--train", "--memory", "1GiB"], "--memory has no room for"),
    ],
)
def test_bad_flags(model: Path, flags: list[str], message: str) -> None:
    assert message in failed(coexec("plan", model, *TWO, *flags), 2)


def test_an_unknown_processor_is_told(model: Path) -> None:
    message = failed(coexec("plan", model, "--processors", "opencl,quantum"))
    assert "unknown processor 'quantum'" in message
