"""Training steps as a GPU gets them: which launches they are, and that their results are right.

No launch on the hot path may use one lane of 32: each that moves much has work-groups of at least
32 items. Judged on paper, for a GPU that is not here; the steps are run by a driver for CPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam, Optimizer
from coexec.core.types import Array, OpCall, Region
from coexec.ops.node import type_of
from coexec.ops.opdef import Example, OpDef
from coexec.ops.table import OPERATORS
from coexec.passes.compress_activations import Activations
from coexec.processors.opencl.choose import by_default
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import KernelStep
from coexec.processors.opencl.table import KERNELS
from tests.gpu_layout import GPU, elements_of, gpu_facts, group_of, laid_out, launches_of
from tests.gpu_networks import decoder, forgetful, upsampling
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import open_opencl

LARGE = 1 << 14
"""Elements from which on a launch must occupy the lanes of a GPU."""
LANES = 32
STEPS = ("resnet18", "mobilenetv2", "vit_tiny", "gpt_tiny")
OTHERS: Mapping[str, tuple[Callable[[], Sequence[KernelStep]], tuple[str, ...]]] = {
    "recurrent": (
        lambda: launches_of("lstm_har", 8, gpu_facts()),
        ("group_steps", "group_grad"),
    ),
    "dropout": (lambda: launches_of(forgetful(8), 8, gpu_facts()), ("mask",)),
    "upsampling": (
        lambda: launches_of(upsampling(4), 4, gpu_facts()),
        ("resample", "resample_grad", "max_pool_grad_tiled"),
    ),
    "codes of 8 bits": (
        lambda: launches_of("resnet18", 8, gpu_facts(), activations="int8"),
        ("compress_words", "decompress_words", "pack_naive", "select_naive"),
    ),
    "codes of 4 bits": (
        lambda: launches_of("resnet18", 8, gpu_facts(), activations="int4"),
        ("compress_words", "decompress_words"),
    ),
    "decoding": (lambda: decoding_launches(2047), ("part_groups", "join_groups")),
}
"""Other steps: their launches, and kernels that must be among these."""
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


@pytest.mark.parametrize("name", OTHERS)
def test_large_launches_of_other_steps_use_the_lanes_of_a_gpu(name: str) -> None:
    """Those that must be there do so whatever their size."""
    launches, entries = OTHERS[name]
    steps = launches()
    assert set(entries) <= {step.entry for step in steps}
    assert not {
        f"{step.entry} ({step.label.choice or step.label.operator}): {step.local_size}"
        for step in steps
        if group_of(step) < LANES and (elements_of(step) > LARGE or step.entry in entries)
    }


def decoding_launches(past: int) -> Sequence[KernelStep]:
    with laid_out(gpu_facts()) as found:
        coexec.compile(coexec.load(decoder(past)), [GPU])
    return found


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
    follow_the_reference(zoo.build(network, batch=4), optimizer)


@pytest.mark.parametrize(
    "build",
    [
        lambda: zoo.build("lstm_har", batch=5, length=12),
        lambda: forgetful(5),
        lambda: upsampling(2),
    ],
    ids=["recurrent", "dropout", "upsampling"],
)
def test_other_training_steps_follow_the_reference(build: Callable[[], ir.Model]) -> None:
    follow_the_reference(build(), SGD(1e-2))


@pytest.mark.parametrize("activations", ["int8", "int4", "mask"])
def test_steps_with_codes_of_activations_follow_the_reference(activations: Activations) -> None:
    follow_the_reference(zoo.build("lenet5", batch=4), SGD(1e-3), activations)


def test_decoding_agrees_with_the_reference(rng: np.random.Generator) -> None:
    model = coexec.load(decoder(300))
    feeds = {
        str(value.name): rng.standard_normal(type_of(value).shape).astype(np.float32) * 0.3
        for value in model.graph.inputs
    }
    found, expected = (coexec.compile(model, [spec]).run(feeds) for spec in (GPU, "reference"))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)


def follow_the_reference(
    model: ir.Model, optimizer: Optimizer, activations: Activations = "full"
) -> None:
    """Losses of three steps on one batch."""
    found, expected = (losses(model, optimizer, spec, activations) for spec in (GPU, "reference"))
    assert len(set(expected)) == 3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def losses(
    source: ir.Model, optimizer: Optimizer, spec: str, activations: Activations
) -> list[float]:
    model = coexec.load(source.clone())
    loss = SoftmaxCrossEntropy()
    trainer = coexec.Trainer(model, loss, optimizer, [spec], activations=activations)
    shape = tuple(type_of(next(iter(model.graph.outputs))).shape)
    labels = np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
    return [trainer.step({"x": input_of(model)}, labels) for _ in range(3)]


def drawn(network: str, batch: int) -> Array:
    """An input of a network of the zoo."""
    return input_of(zoo.build(network, batch=batch))


def input_of(model: ir.Model) -> Array:
    """An input: numbers, or tokens where a network takes those."""
    kind = type_of(next(iter(model.graph.inputs)))
    rng = np.random.default_rng(0)
    if kind.dtype.kind == "i":
        return rng.integers(0, 100, kind.shape).astype(kind.dtype)
    return rng.standard_normal(kind.shape).astype(kind.dtype)
