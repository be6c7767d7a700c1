"""Training steps as a GPU gets them: which launches they are, and that their results are right.

No launch on the hot path may use one lane of 32: each that moves much has work-groups of at least
32 items. Judged on paper, for a GPU that is not here; the steps are run by a driver for CPUs.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam, Optimizer
from coexec.core.types import Array, OpCall, Region
from coexec.ops.node import type_of
from coexec.ops.opdef import Example, OpDef
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import by_default
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import KernelStep
from coexec.processors.opencl.table import KERNELS
from tests.gpu_layout import GPU, elements_of, gpu_facts, group_of, launches_of
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import open_opencl

LARGE = 1 << 14
"""Elements from which on a launch must occupy the lanes of a GPU."""
LANES = 32
STEPS = ("resnet18", "mobilenetv2", "vit_tiny", "gpt_tiny")
EXCEPTIONS: dict[str, str] = {}
"""Kernels that may have smaller groups, with the reason."""
PRODUCTS = ("Gemm", "MatMul", "Conv", "coexec::ConvInputGrad", "coexec::ConvWeightGrad")


@functools.cache
def large_launches(network: str) -> list[KernelStep]:
    return [step for step in launches_of(network, 8, gpu_facts()) if elements_of(step) > LARGE]


@pytest.mark.parametrize("network", STEPS)
def test_large_launches_of_a_training_step_use_the_lanes_of_a_gpu(network: str) -> None:
    steps = large_launches(network)
    assert len(steps) > 50
    small = {
        f"{step.entry} ({step.label.choice or step.label.operator}): {step.local_size}"
        for step in steps
        if group_of(step) < LANES and step.entry not in EXCEPTIONS
    }
    assert not small


@pytest.mark.parametrize("network", STEPS)
def test_no_product_of_a_training_step_is_naive(network: str) -> None:
    products = [s for s in large_launches(network) if s.label.operator.startswith(PRODUCTS)]
    assert products
    assert not {str(step.label) for step in products if step.label.choice.startswith("naive")}


def test_adam_uses_the_lanes_of_a_gpu() -> None:
    steps = launches_of("mobilenetv2", 1, gpu_facts(), Adam(1e-3))
    adam = [step for step in steps if "adam" in step.entry]
    assert adam
    assert min(map(group_of, adam)) >= LANES


CASES = [
    pytest.param(op, example, id=f"{op.identifier}-{i}")
    for op in OPERATORS.values()
    if op.identifier in KERNELS
    for i, example in enumerate(op.examples)
]


@pytest.mark.parametrize(("op", "example"), CASES)
def test_every_operator_agrees_with_the_reference_on_a_gpu(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    """By the variant that a GPU gets by default."""
    processor = open_opencl(GPU)
    operands = example.draw(rng)
    call: OpCall = example.call(op, operands)
    if not processor.supports(call).yes:
        return  # tests of conformance count refusals: they do not depend on the layout
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, processor.name, by_default)
    given = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    actual = run_region(processor, region, executable, given)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))


@pytest.mark.parametrize("network", ["lenet5", "lstm_har", "squeezenet", "gpt_tiny"])
def test_networks_agree_with_the_reference(network: str) -> None:
    model = zoo.build(network, batch=1)
    feeds = {"x": drawn(network, 1)}
    results = [
        next(iter(coexec.compile(coexec.load(model), [spec]).run(feeds).values()))
        for spec in (GPU, "reference")
    ]
    assert np.abs(results[0] - results[1]).max() <= 1e-4 * np.abs(results[1]).max()


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        ("lenet5", SGD(1e-3, momentum=0.9)),
        ("digits_cnn", Adam(1e-3)),
        ("gpt_tiny", SGD(1e-3)),
        ("mlp", Adam(1e-3)),
    ],
    ids=["lenet5", "digits_cnn", "gpt_tiny", "mlp"],
)
def test_training_steps_follow_the_reference(network: str, optimizer: Optimizer) -> None:
    np.testing.assert_allclose(
        losses(network, optimizer, GPU), losses(network, optimizer, "reference"), rtol=1e-4
    )


def losses(network: str, optimizer: Optimizer, spec: str) -> list[float]:
    """Of three steps on one batch."""
    model = coexec.load(zoo.build(network, batch=4))
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), optimizer, [spec])
    shape = tuple(type_of(next(iter(model.graph.outputs))).shape)
    labels = np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
    return [trainer.step({"x": drawn(network, 4)}, labels) for _ in range(3)]


def drawn(network: str, batch: int) -> Array:
    """An input of a network: numbers, or tokens where it takes those."""
    kind = type_of(next(iter(zoo.build(network, batch=batch).graph.inputs)))
    rng = np.random.default_rng(0)
    if kind.dtype.kind == "i":
        return rng.integers(0, 100, kind.shape).astype(kind.dtype)
    return rng.standard_normal(kind.shape).astype(kind.dtype)
