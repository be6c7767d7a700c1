"""Convolutions for GPUs: tiles of work-groups, cut sums, phases of strides, depthwise ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.core.events import Trace
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.kernels import conv_coded
from coexec.processors.opencl.kernels.conv import FAMILY
from coexec.processors.opencl.runtimes import OCLGRIND_DRIVER
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import feed, with_weights
from tests.random_calls import MAKERS, Dice
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

ROOT = Path(__file__).parents[2]
Shape = tuple[int, ...]
INPUT, WEIGHT = "coexec::ConvInputGrad", "coexec::ConvWeightGrad"
ALL = ("Conv", "ConvTranspose", INPUT, WEIGHT)
NAMES = ("depthwise_items", "winograd_items", "tiled", "tiled_weight")
MOST_ERROR = 2e-5
"""Of minimal filtering, in terms of the results' standard deviation (kernels/winograd.py)."""
UNITS = 16
"""Compute units of a GPU: so many that sums are cut."""


def facts_of(runtime: str, **others: Any) -> DeviceFacts:
    """Those of a GPU."""
    return replace(open_opencl(f"{runtime}?unit=gpu").facts, **({"compute_units": UNITS} | others))


def case(
    name: str, first: Shape, second: Shape, *third: Shape, **attributes: object
) -> tuple[str, Example]:
    operands = tuple(Sample(shape) for shape in (first, second, *third))
    fixed = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1}
    return name, Example(operands, fixed | attributes)


CASES = {
    "tiles of rows and columns, cut sums": case("Conv", (2, 40, 9, 10), (70, 40, 3, 3), (70,)),
    "one tap, vectors": case("Conv", (2, 70, 6, 14), (33, 70, 1, 1), pads=(0,) * 4),
    "one tap, every other position": case(
        "Conv", (2, 18, 13, 9), (20, 18, 1, 1), (20,), pads=(0,) * 4, strides=(2, 2)
    ),
    "groups": case("Conv", (2, 24, 8, 11), (36, 12, 3, 3), (36,), group=2),
    "few rows": case("Conv", (3, 30, 12, 31), (3, 30, 3, 3), (3,)),
    "more taps than the small table": case(
        "Conv", (1, 3, 23, 29), (12, 3, 7, 7), strides=(2, 2), pads=(3,) * 4
    ),
    "more taps than any table": case(
        "Conv", (1, 1, 20, 21), (9, 1, 17, 17), pads=(8,) * 4
    ),
    "filtered, cut off tiles": case("Conv", (8, 130, 25, 26), (135, 130, 3, 3), (135,)),
    "filtered, gradient, pads": case(
        INPUT, (8, 140, 26, 23), (140, 128, 3, 3), input_shape=(8, 128, 24, 23), pads=(2, 1, 2, 1)
    ),
    "gradient": case(INPUT, (2, 70, 9, 10), (70, 33, 3, 3), input_shape=(2, 33, 9, 10)),
    "gradient, phases, one without taps": case(
        INPUT, (2, 20, 4, 5), (20, 24, 2, 3), input_shape=(2, 24, 12, 10), strides=(3, 2),
        pads=(0, 1, 1, 1),
    ),
    "transposed, phases, biased": case(
        "ConvTranspose", (1, 24, 5, 7), (24, 12, 4, 4), (12,), strides=(2, 2)
    ),
    "weights, cut sums": case(WEIGHT, (3, 20, 9, 10), (3, 40, 9, 10), kernel_shape=(3, 3)),
    "weights, groups, strides": case(
        WEIGHT, (2, 24, 13, 11), (2, 36, 7, 6), kernel_shape=(3, 3), strides=(2, 2), group=2
    ),
    "weights, one tap": case(
        WEIGHT, (2, 70, 7, 7), (2, 34, 7, 7), kernel_shape=(1, 1), pads=(0,) * 4
    ),
    "depthwise": case("Conv", (2, 6, 19, 21), (6, 1, 3, 3), (6,), group=6),
    "depthwise, two results a channel, strides": case(
        "Conv", (2, 6, 19, 21), (12, 1, 5, 5), group=6, strides=(2, 2), pads=(2,) * 4
    ),
    "depthwise, many taps": case("Conv", (1, 5, 15, 14), (5, 1, 7, 7), group=5, pads=(3,) * 4),
    "depthwise gradient, strides, two results": case(
        INPUT, (2, 12, 10, 11), (12, 1, 5, 5), group=6, strides=(2, 2), pads=(2,) * 4,
        input_shape=(2, 6, 19, 21),
    ),
    "depthwise gradient, dilated": case(
        INPUT, (1, 5, 15, 14), (5, 1, 3, 3), group=5, dilations=(2, 3), pads=(2, 3, 2, 3),
        input_shape=(1, 5, 15, 14),
    ),
    "depthwise weights, cut sums": case(
        WEIGHT, (3, 5, 19, 21), (3, 5, 19, 21), kernel_shape=(3, 3), group=5
    ),
    "depthwise weights, rows of taps": case(
        WEIGHT, (2, 5, 15, 14), (2, 10, 8, 7), kernel_shape=(7, 7), group=5, strides=(2, 2),
        pads=(3,) * 4,
    ),
}  # fmt: skip


SMALL = {
    "staged": case("Conv", (1, 10, 5, 5), (10, 10, 3, 3), (10,)),
    "staged, one tap": case("Conv", (1, 20, 4, 3), (10, 20, 1, 1), pads=(0,) * 4),
    "staged, phases": case(
        INPUT, (1, 6, 3, 3), (6, 10, 3, 3), input_shape=(1, 10, 5, 5), strides=(2, 2)
    ),
    "filtered": case("Conv", (1, 6, 5, 7), (10, 6, 3, 3), (10,)),
    "read in place": case("Conv", (1, 128, 3, 3), (3, 128, 1, 1), (3,), pads=(0,) * 4),
    "weights": case(WEIGHT, (2, 3, 7, 7), (2, 9, 7, 7), kernel_shape=(3, 3)),
    "depthwise": case("Conv", (1, 3, 6, 7), (3, 1, 3, 3), group=3),
    "depthwise gradient": case(
        INPUT, (1, 3, 3, 4), (3, 1, 3, 3), input_shape=(1, 3, 6, 7), strides=(2, 2), group=3
    ),
    "depthwise weights": case(
        WEIGHT, (3, 1, 12, 16), (3, 1, 12, 16), kernel_shape=(3, 3), group=1
    ),
}  # fmt: skip
"""For oclgrind, which interprets every instruction."""


def run(
    runtime: str, call: OpCall, operands: list[Array | None], choice: Choice, facts: DeviceFacts
) -> list[Array]:
    region = Region.alone(call)
    executable = compile_region(region, facts, "test", always(choice))
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(open_opencl(runtime), region, executable, values)


FEW = (
    "tiles of rows and columns, cut sums",
    "few rows",
    "gradient, phases, one without taps",
    "weights, cut sums",
    "depthwise gradient, strides, two results",
    "depthwise weights, cut sums",
)
"""Cases for runtimes that build slowly."""


@pytest.mark.parametrize(
    ("runtime", "name"),
    [(r, name) for r in DRIVERS for name in (CASES if r in THOROUGH else FEW)],
)
def test_what_a_gpu_would_run_agrees_with_the_reference(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    identifier, example = CASES[name]
    op, operands = OPERATORS[identifier], example.draw(rng)
    call = example.call(op, operands)
    expected = expected_outputs(op, call, operands)
    for on_chip in (True, False) if runtime in THOROUGH else (True,):
        facts = facts_of(runtime, on_chip=on_chip)
        variant, _ = FAMILY.choose(call, facts)
        assert variant is not None
        assert variant.name in NAMES
        assert (variant.name == "winograd_items") == name.startswith("filtered")
        choice = Choice(variant, variant.defaults(call, facts))
        actual = run(runtime, call, operands, choice, facts)
        if variant.name == "winograd_items":
            assert_filtered(actual[0], expected[0])
        else:
            assert_agrees(op, call, actual, expected)


def assert_filtered(actual: Array, expected: Array) -> None:
    """Close enough for minimal filtering, whose errors are those of larger numbers."""
    assert np.abs(actual - expected).max() < MOST_ERROR * expected.std()


@pytest.mark.parametrize("identifier", ALL)
def test_random_calls_with_random_tuned_values(identifier: str) -> None:
    op, tried = OPERATORS[identifier], set()
    for number in range(2):
        dice = Dice(f"{identifier} GPU {number}")
        facts = facts_of(THOROUGH[0], compute_units=dice.choice((2, UNITS)))
        variants = [v for v in FAMILY.variants if v.name in NAMES]
        choices = [
            Choice(v, {name: dice.choice(values) for name, values in v.space.items()})
            for v in variants
        ]
        for _ in range(6):
            example = MAKERS[identifier](dice)
            operands = example.draw(np.random.default_rng(dice.randrange(1 << 32)))
            call = example.call(op, operands)
            expected = expected_outputs(op, call, operands)
            for choice in choices:
                if choice.variant.applies(call, facts) is None:
                    actual = run(THOROUGH[0], call, operands, choice, facts)
                    assert_agrees(op, call, actual, expected)
                    tried.add(choice.variant.name)
    assert "tiled_weight" in tried if identifier == WEIGHT else "tiled" in tried


@pytest.mark.parametrize("name", ["tiles of rows and columns, cut sums", "weights, cut sums"])
def test_halves_are_summed_in_floats(name: str, rng: np.random.Generator) -> None:
    facts = facts_of(THOROUGH[0])
    if not facts.fp16:
        pytest.skip(f"{THOROUGH[0]} has no float16")
    identifier, example = CASES[name]
    op = OPERATORS[identifier]
    operands = [None if o is None else o.astype(np.float16) for o in example.draw(rng)]
    call = example.call(op, operands)
    variant, _ = FAMILY.choose(call, facts)
    assert variant is not None
    choice = Choice(variant, variant.defaults(call, facts))
    actual = run(THOROUGH[0], call, operands, choice, facts)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))


@pytest.mark.parametrize(
    ("channels", "size", "kernel"),
    [(5, 16, "tiled"), (300, 5, "sum")],
    ids=["whole sums", "parts of sums"],
)
def test_what_follows_is_done_by_the_last_kernel(channels: int, size: int, kernel: str) -> None:
    """A sum takes the place of its operand: an element that is finished twice would be wrong."""
    model = with_weights(
        f"g (float[1,{channels},{size},{size}] x, float[23,{channels},1,1] w, float[23] b,"
        f" float[23,{channels},1,1] v) => (float[1,23,{size},{size}] y) {{"
        " h = Conv(x, w, b) k = Conv(x, v) m = Softmax<axis=1>(k) s = Add(h, m) y = Relu(s) }"
    )
    x = feed(model)
    session, trace = coexec.compile(model, [f"{THOROUGH[0]}?unit=gpu"]), Trace()
    (y,) = session.run(x, trace=trace).values()
    assert f"Conv+Add+Relu.conv_{kernel}" in {event.operator for event in trace.leaves()}
    np.testing.assert_allclose(y, evaluate(model, x)["y"], rtol=1e-4, atol=1e-5)
    assert y.tobytes() == session.run(x)["y"].tobytes()


@pytest.mark.parametrize(
    ("x", "w", "filtered"),
    [
        ((8, 64, 56, 56), (64, 64, 3, 3), False),
        ((8, 128, 28, 28), (128, 128, 3, 3), True),
        ((1, 512, 7, 7), (512, 512, 3, 3), False),
    ],
    ids=["few channels", "many channels", "few positions"],
)
def test_filtering_is_for_what_is_large(x: Shape, w: Shape, filtered: bool) -> None:
    variant, _ = FAMILY.choose(conv_call(x, w, pads=(1, 1, 1, 1)), facts_of(THOROUGH[0]))
    assert variant is not None
    assert (variant.name == "winograd_items") == filtered


def conv_call(x: Shape, w: Shape, **attributes: object) -> OpCall:
    kinds = (TensorType(x, np.dtype(np.float32)), TensorType(w, np.dtype(np.float32)))
    return OPERATORS["Conv"].typed(OpCall("Conv", kinds, attributes))


@pytest.mark.parametrize(
    ("x", "w", "units", "staged", "parts"),
    [
        ((8, 64, 56, 56), (64, 64, 3, 3), 8, 1, 1),
        ((1, 512, 7, 7), (512, 512, 3, 3), 8, 1, 2),
        ((1, 64, 56, 56), (3, 64, 3, 3), 8, 0, 2),
    ],
    ids=["many results", "few results", "few rows"],
)
def test_groups_are_enough_for_the_device(
    x: Shape, w: Shape, units: int, staged: int, parts: int
) -> None:
    call = conv_call(x, w, pads=(1, 1, 1, 1))
    facts = facts_of(THOROUGH[0], compute_units=units)
    variant, _ = FAMILY.choose(call, facts)
    assert variant is not None
    values = variant.defaults(call, facts)
    assert values["STAGED"] == staged
    first, *more = variant.lower(call, facts, values).calls
    assert first.local_size is not None
    assert 64 <= np.prod(first.local_size) <= facts.max_work_group_size
    groups = np.prod(first.global_size) // np.prod(first.local_size)
    assert groups >= units * values["GROUPS"] / 2
    assert len(more) == int(parts > 1)


@pytest.mark.skipif(
    not OCLGRIND_DRIVER.exists(), reason="oclgrind is not installed (Debian: oclgrind)"
)
def test_tiles_have_no_race_and_stay_in_bounds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {"OCLGRIND_LOG": str(log), "COEXEC_OCLGRIND": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.conformance.oclgrind_conv"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == len(SMALL)
    assert not log.exists() or not log.read_text().strip(), log.read_text()[:2000]


def test_steps_fit_the_local_memory_that_there_is() -> None:
    call = conv_call((8, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    facts = facts_of(THOROUGH[0], local_bytes=4 << 10)
    variant, _ = FAMILY.choose(call, facts)
    assert variant is not None
    (kernel,) = variant.lower(call, facts, variant.defaults(call, facts)).calls
    assert kernel.defines["TK"] == 4


def test_cpus_keep_their_kernels() -> None:
    facts = replace(facts_of(THOROUGH[0]), unit_kind="cpu", vector_bytes=32)
    chosen = {
        FAMILY.choose(conv_call(x, w), facts)[0].name  # type: ignore[union-attr]
        for x, w in (((1, 64, 56, 56), (64, 64, 3, 3)), ((1, 64, 56, 56), (256, 64, 1, 1)))
    }
    assert chosen.isdisjoint(NAMES)


def test_gradients_of_weights_read_no_codes() -> None:
    """Kernels that expand codes are for cores with caches; tiles read whole tensors."""
    x, dy = (TensorType((2, 16, 28, 28), np.dtype(np.float32)) for _ in range(2))
    attributes = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    call = OPERATORS[WEIGHT].typed(OpCall("ConvWeightGrad", (x, dy), attributes, domain="coexec"))
    facts = facts_of(THOROUGH[0])
    assert conv_coded.refuse(call, facts) is not None
    assert conv_coded.refuse(call, replace(facts, unit_kind="cpu", vector_bytes=32)) is None
