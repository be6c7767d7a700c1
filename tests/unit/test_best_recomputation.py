"""What is recomputed in small steps takes hardly longer than the best that a solver finds."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.types import OpCall
from coexec.memory.build_problem import build_problem
from coexec.memory.choose import choose
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem
from coexec.ops.node import type_of
from coexec.ops.table import opdef
from coexec.passes.order_for_memory import order_for_memory
from coexec.processors.find import open_processor
from coexec.session import legalise
from coexec.steps.builder import Recipe, StepBuilder
from coexec.zoo.builder import Net, batch_norm, conv, global_pool, linear, relu
from coexec.zoo.mobilenet import inverted_residual
from coexec.zoo.transformer import Width, attention, block, layer_norm
from tests.best_recomputation import best_recomputation

CLASSES, CHANNELS, IMAGE = 4, 8, (8, 8, 16, 16)
SEQUENCE = (8, 16, 32)
SECONDS = 20.0
LAUNCH_US, FLOP_PER_US, BYTES_PER_US = 2.0, 100e3, 20e3


def skips(depth: int = 4) -> ir.Model:
    """Layers with a skip around every two."""
    net = Net("skips", (256, 16), seed=0)
    h = kept = relu(net, linear(net, net.x, "in", (16, 64)), "in.relu")
    for i in range(1, depth + 1):
        h = relu(net, linear(net, h, f"fc{i}", (64, 64)), f"fc{i}.relu")
        if i % 2 == 0:
            h = kept = net.op("Add", f"add{i}", [h, kept])
    return net.finish(linear(net, h, "out", (64, CLASSES)), CLASSES)


def residual(strides: tuple[int, ...] = (1,)) -> ir.Model:
    """A stem and residual blocks; each stride above 1 has a convolution beside it."""
    net, width = Net("residual", IMAGE, seed=0), CHANNELS
    h = _convolved(net, net.x, "stem", (width, width), 1)
    for i, stride in enumerate(strides):
        y = _convolved(net, h, f"{i}.first", (width, width), stride)
        y = conv(net, y, f"{i}.second", (width, width), (3, 3), pad=1, bias=False)
        y = batch_norm(net, y, f"{i}.second.bn", width)
        if stride > 1:
            h = conv(net, h, f"{i}.beside", (width, width), (1, 1), stride=stride, bias=False)
        h = relu(net, net.op("Add", f"{i}.add", [y, h]), f"{i}.relu")
    return _classified(net, h)


def inverted(blocks: int = 1) -> ir.Model:
    """Inverted bottlenecks of MobileNetV2."""
    net = Net("inverted", IMAGE, seed=0)
    h = net.x
    for i in range(blocks):
        h = inverted_residual(net, h, f"{i}", (CHANNELS, CHANNELS), 4, 1)
    return _classified(net, h)


def attending(*, whole: bool = False) -> ir.Model:
    """An attention block; with its perceptron, if ``whole``."""
    tokens, features = SEQUENCE[1:]
    width, net = Width(tokens, features, 4), Net("attending", SEQUENCE, seed=0)
    if whole:
        h = block(net, net.x, "block", width, gelu="none")
    else:
        h = attention(net, layer_norm(net, net.x, "ln", features), "attn", width, None)
        h = net.op("Add", "add", [h, net.x])
    axes = net.constant("pool.axes", (1,), "int64")
    pooled = net.op("ReduceMean", "pool", [h, axes], {"keepdims": 0})
    return net.finish(linear(net, pooled, "head", (features, CLASSES)), CLASSES)


def _convolved(net: Net, x: ir.Value, name: str, size: tuple[int, int], stride: int) -> ir.Value:
    h = conv(net, x, name, size, (3, 3), pad=1, stride=stride, bias=False)
    return relu(net, batch_norm(net, h, f"{name}.bn", size[1]), f"{name}.relu")


def _classified(net: Net, h: ir.Value) -> ir.Model:
    return net.finish(linear(net, global_pool(net, h), "fc", (CHANNELS, CLASSES)), CLASSES)


STEPS: dict[str, Callable[[], ir.Model]] = {
    "skips": skips,
    "residual": residual,
    "inverted": inverted,
    "attention": attending,
}
LARGER: dict[str, Callable[[], ir.Model]] = {
    "residual 2": lambda: residual((1, 2)),
    "inverted 2": lambda: inverted(2),
    "block": lambda: attending(whole=True),
}
"""About half a minute each: with COEXEC_TEST_ALL=1."""


def cost_us(call: OpCall) -> float:
    """By the roofline of a small device."""
    work = opdef(call).work(call)
    return LAUNCH_US + max(work.flop / FLOP_PER_US, work.bytes / BYTES_PER_US)


def problem_of(model: ir.Model) -> StepProblem:
    """The memory problem of a training step as the reference processor would run it."""
    loaded = coexec.load(model)
    (x,) = loaded.graph.inputs
    builder = StepBuilder(loaded, Recipe(SoftmaxCrossEntropy(), SGD(0.01)))
    step = builder.build("step", {"x": np.zeros(type_of(x).shape, np.float32)})
    legal = legalise(step.model, {"reference": open_processor("reference")})
    order_for_memory(legal.graph, step.state)
    return build_problem(legal.graph, (), cost_us)


@pytest.mark.parametrize("name", [*STEPS, *(LARGER if "COEXEC_TEST_ALL" in os.environ else ())])
def test_recomputation_is_within_5_percent_of_the_best(name: str) -> None:
    """At budgets between the plain peak and the least that any plan of ours takes."""
    pytest.importorskip("ortools")
    problem = problem_of((STEPS | LARGER)[name]())
    plain, least = usage(problem).peak, choose(problem, 1).peak
    assert least < 0.85 * plain
    for share in (0.6, 0.0):
        budget = int(least + share * (plain - least))
        found = choose(problem, budget)
        best = best_recomputation(problem, budget, SECONDS)
        assert best is not None
        assert best.proved or name in LARGER
        assert found.peak <= budget
        # A yardstick that is longer than what it measures would be none.
        assert best.bound_us <= problem.total_us + found.extra_us + 1e-3 * len(problem.nodes)
        assert problem.total_us + found.extra_us <= 1.05 * best.total_us
