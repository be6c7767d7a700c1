"""Inference in float16 that a user asks for: API, command line, plans, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.api import open_all
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.frontend.export import save_model
from coexec.passes.float16 import in_precision
from coexec.placement.save import load_plan
from coexec.planning.planner import PlanOptions, plan_inference
from coexec.processors.find import list_processors
from coexec.simulate import SINGLE, Setup, Subject, simulate
from tests.graphs import parse
from tests.pipeline.command import coexec as run
from tests.pipeline.command import failed

OPENCL = [c for c in list_processors() if c.spec is not None and c.name.startswith("opencl:")]
ABLE = [
    "reference",
    *(c.name for c in OPENCL if c.spec and c.spec.features["fp16"] and "oclgrind" not in c.name),
]
UNABLE = [c.name for c in OPENCL if c.spec and not c.spec.features["fp16"]]
SHAPES = {"x": (64, 16), "w": (16, 16)}
SOC = "snapdragon-865"
PHONE = f"sim:{SOC}/gpu"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float16") / "digits.onnx"
    save_model(zoo.build("digits_cnn", batch=4), path)
    return path


def images() -> dict[str, Array]:
    return {"x": np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("processor", ABLE)
def test_results_are_close_to_those_of_float32(network: Path, processor: str) -> None:
    model = coexec.load(network)
    expected = coexec.compile(model, [processor]).run(images())["y"]
    session = coexec.compile(model, [processor], precision="float16")
    found = session.run(images())["y"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert np.any(found != expected)
    (converted,) = session.conversions
    assert (converted.kept, converted.casts, session.fallbacks) == ((), 2, "")


def test_weights_take_half_of_the_memory(network: Path) -> None:
    model = coexec.load(network)
    single, half = (coexec.compile(model, [PHONE], precision=p) for p in ("", "float16"))
    assert half.program.constant_bytes < 0.55 * single.program.constant_bytes


def test_open_shapes_are_converted_when_data_tell_them() -> None:
    model = coexec.load(zoo.build("digits_cnn"))
    session = coexec.compile(model, ["reference"], precision="float16")
    for batch in (1, 3):
        found = session.run({"x": np.ones((batch, 1, 8, 8), np.float32)})["y"]
        assert found.shape == (batch, 10)
        assert session.conversions[0].nodes == 12


def test_a_model_in_parts_is_converted_part_by_part() -> None:
    graph = (
        "g (float[64,16] x, float[16,16] w) => (float[N] y) "
        "{ h = MatMul(x, w) i = NonZero(h) t = Transpose(i) f = GatherND(h, t) y = Relu(f) }"
    )
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    session = coexec.compile(coexec.load(parse(graph)), ["reference"], precision="float16")
    found = session.run(feeds)["y"]
    assert [each.nodes for each in session.conversions] == [1, 0]
    expected = np.maximum(feeds["x"] @ feeds["w"], 0).reshape(-1)
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_the_users_model_stays_as_it_is(network: Path) -> None:
    model = coexec.load(network)
    coexec.compile(model, ["reference"], precision="float16").run(images())
    assert not coexec.compile(model, ["reference"]).conversions


@pytest.mark.skipif(not UNABLE, reason="every OpenCL device here has float16")
def test_a_device_without_float16_is_refused_by_name(network: Path) -> None:
    model = coexec.load(network)
    with pytest.raises(UsageError, match=f"{UNABLE[0]} .* use another processor, or precision"):
        coexec.compile(model, UNABLE[:1], precision="float16")
    asked, how = in_precision(model, "float16"), PlanOptions(seconds=0.0)
    with pytest.raises(UsageError, match=UNABLE[0]):
        plan_inference(asked, images(), open_all(UNABLE[:1]), how)
    message = failed(run("run", network, "-p", UNABLE[0], "--precision", "float16"), 2)
    assert "does not have" in message


def test_a_precision_of_training_is_refused(network: Path) -> None:
    message = failed(run("run", network, "-p", "reference", "--precision", "mixed"), 2)
    assert message == "precision 'mixed' is unknown for inference; known: float32, float16"


def test_run_says_what_computes_in_float16(network: Path) -> None:
    arguments = ("run", network, "-p", "reference", "--precision", "float16")
    record = run(*arguments, "--json").record
    assert record["precision"] == "float16"
    (converted,) = record["conversions"]
    assert (converted["nodes"], converted["casts"], converted["kept"]) == (12, 2, [])
    assert record["outputs"]["y"]["dtype"] == "float32"
    assert "12 of 12 nodes compute in float16" in run(*arguments).err


def test_run_counts_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    save_model(zoo.build("digits_cnn", batch=4), path)
    np.save(tmp_path / "x.npy", np.full((4, 1, 8, 8), 1e6, np.float32))
    arguments = ("run", path, "-p", "reference", "--input", f"x={tmp_path / 'x.npy'}")
    assert not run(*arguments, "--json").record["not_finite"]
    done = run(*arguments, "--precision", "float16", "--json").record
    assert done["not_finite"] == {"y": 40}


def test_profiles_of_float16_say_so(network: Path) -> None:
    arguments = ("profile", network, "-p", PHONE, "--steps", "1", "--json")
    single = run(*arguments).record
    half = run(*arguments, "--precision", "float16").record
    assert half["options"]["precision"] == "float16"
    assert "precision" not in single["options"]
    assert half["wall_ms"] != single["wall_ms"]


def test_profiles_of_training_are_mixed_or_refused(network: Path) -> None:
    arguments = ("profile", network, "--train", "-p", PHONE, "--steps", "1", "--json")
    single = run(*arguments).record
    mixed = run(*arguments, "--precision", "mixed").record
    assert mixed["options"]["precision"] == "mixed"
    assert any(row["name"] == "Cast" for row in mixed["operators"])
    assert not any(row["name"] == "Cast" for row in single["operators"])
    refused = run(*arguments, "--precision", "float16").error
    assert refused["error"] == "precision 'float16' is unknown for training; known: float32, mixed"


@pytest.fixture
def planned(network: Path, tmp_path: Path) -> Path:
    path = tmp_path / "plan.onnx"
    done = run(
        *("plan", network, "--processors", f"{PHONE},sim:{SOC}/cpu", "--budget", "0"),
        *("--no-verify", "--precision", "float16", "--save", path),
    )
    assert done.status == 0, done.err
    assert "float16: 12 of 12 nodes compute in float16, 2 cast" in done.err
    return path


def test_a_plan_in_float16_is_followed_in_float16(network: Path, planned: Path) -> None:
    model = coexec.load(network)
    session = coexec.compile(model, plan=planned)
    found = session.run(images())["y"]
    assert session.conversions[0].nodes == 12
    np.testing.assert_allclose(
        found, coexec.compile(model, ["reference"]).run(images())["y"], atol=1e-2
    )


def test_a_plan_says_what_computes_in_float16(network: Path) -> None:
    arguments = ("plan", network, "--processors", PHONE, "--budget", "0", "--no-verify", "--json")
    assert not run(*arguments).record["float16"]
    half = run(*arguments, "--precision", "float16").record
    assert half["float16"] == ["12 of 12 nodes compute in float16, 2 cast"]


def test_a_plan_in_float16_is_none_of_the_model_in_float32(network: Path, planned: Path) -> None:
    arguments: tuple[Any, ...] = ("run", network, "--plan", planned)
    found = failed(run(*arguments, "--precision", "float32"))
    assert found == (
        "the plan is not of this model in float32: it was made in float16; "
        "leave the precision out, or make a plan in float32"
    )


def test_a_plan_without_a_file_is_followed_in_the_precision_of_the_model(
    network: Path, planned: Path
) -> None:
    """A plan by itself has no precision; a model that says its own keeps it."""
    _, plan = load_plan(planned)
    model = in_precision(coexec.load(network), "float16")
    assert coexec.compile(model, plan=plan).conversions[0].nodes == 12


def test_a_planned_model_is_converted_once(planned: Path) -> None:
    session = coexec.compile(coexec.load(planned), plan=planned)
    session.run(images())
    assert session.conversions[0].nodes == 0


def test_costs_of_a_plan_are_those_of_float16(network: Path) -> None:
    model, how = coexec.load(network), PlanOptions("single_best", seconds=0.0)
    calls = [
        plan_inference(
            in_precision(model, precision), images(), open_all([PHONE]), how
        ).ground.known.calls
        for precision in ("float32", "float16")
    ]
    weights = [
        sum(k.nbytes for call in each for k in call.inputs if k is not None) for each in calls
    ]
    assert weights[1] < 0.6 * weights[0]


def test_a_phone_takes_as_long_as_if_it_computed_in_float16_itself() -> None:
    """Simulations in ``precision=float16`` convert nothing: casts are next to nothing."""
    model = in_precision(coexec.load(zoo.build("mobilenetv2", batch=1)), "float16")
    feeds = {"x": np.zeros((1, 3, 224, 224), np.float32)}
    times = [
        simulate(Subject(each, feeds), Setup(SOC, ("gpu",), SINGLE, precision=how, runs=1))[0].ms
        for each, how in ((in_precision(model, "float32"), "float16"), (model, ""))
    ]
    assert times[1] == pytest.approx(times[0], rel=0.03)
