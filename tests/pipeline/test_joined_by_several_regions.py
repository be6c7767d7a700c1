"""Concatenations of what several regions of a processor make: equal results, nothing copied."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coexec
from coexec.api import open_all
from coexec.core.plan import Plan
from coexec.core.program import Program
from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from coexec.session import legalise
from tests.graphs import evaluate, parse
from tests.runtimes import THOROUGH

RUNTIME, OTHER = THOROUGH[0], "reference"
SHAPE = (1, 2, 8, 8)
LAYERS = 4


def dense_block() -> onnx.ModelProto:
    """Each layer adds channels; another processor has a look at each layer first, as at halos."""
    nodes = ["h0 = Softmax(x)"]
    for i in range(LAYERS):
        nodes.append(f"[wide{i}] w{i} = Softmax<axis = 1>(h{i})")
        nodes.append(f"[away{i}] a{i} = Exp(w{i})")
        nodes.append(f"[deep{i}] d{i} = Softmax<axis = 2>(a{i})")
        nodes.append(f"[join{i}] h{i + 1} = Concat<axis = 1>(h{i}, d{i})")
    nodes.append(f"y = Softmax<axis = 1>(h{LAYERS})")
    return parse(f"g (float[1,2,8,8] x) => (float[1,32,8,8] y) {{{' '.join(nodes)}}}")


def kernels(program: Program) -> Iterator[str]:
    """Operators whose kernels the program runs on OpenCL."""
    for executable in program.executables:
        if isinstance(executable, OpenCLExecutable):
            steps = (step for step in executable.steps if isinstance(step, KernelStep))
            yield from (step.label.operator.split(".")[0] for step in steps)


def lowered(model: ir.Model, away: set[str], *, reuses: bool) -> Executor:
    """The model with nodes named ``away`` on the reference; with ``reuses``, packed arenas."""
    processors = open_all([RUNTIME, OTHER])
    model = legalise(model, processors)
    first = next(iter(processors))
    plan = Plan({str(n.name): OTHER if n.name in away else first for n in model.graph})
    program = lower(model.graph, Lowering(plan, processors, reuses=reuses))
    return Executor(program, processors)


@pytest.mark.parametrize("reuses", [False, True], ids=["", "packed"])
def test_a_divided_dense_block_copies_nothing(reuses: bool, rng: np.random.Generator) -> None:
    model = coexec.load(dense_block())
    x = rng.standard_normal(SHAPE, np.float32)
    executor = lowered(model, {f"away{i}" for i in range(LAYERS)}, reuses=reuses)
    assert set(kernels(executor.program)) == {"Softmax"}
    (expected,) = evaluate(model, {"x": x}).values()
    for _ in range(2):
        np.testing.assert_allclose(executor.run({"x": x})["y"], expected, 1e-5, 1e-6)


class Dice(random.Random):
    """Draws graphs of images of several channels that are joined again and again."""

    def __init__(self, seed: int) -> None:
        super().__init__(f"joined {seed}")
        self.channels = {"x": 2}
        self.nodes: list[str] = []

    def model(self, nodes: int) -> ir.Model:
        """So many nodes; the last result and one before it are outputs."""
        for number in range(nodes):
            self.append(number)
        *made, last = self.channels
        outputs = sorted({last, self.choice(made[1:])})
        kinds = ", ".join(f"float[1,{self.channels[name]},8,8] {name}" for name in outputs)
        shape = "<int64[4] image = {1, -1, 8, 8}>"
        text = f"g (float[1,2,8,8] x) => ({kinds}) {shape} {{{' '.join(self.nodes)}}}"
        return coexec.load(parse(text))

    def append(self, number: int) -> None:
        """One more node, of some of the last results."""
        known, name = [*self.channels][-4:], f"t{number}"
        first = self.choice(known)
        alike = [n for n in known if self.channels[n] == self.channels[first]]
        pick = self.random()
        self.channels[name] = self.channels[first]
        if pick < 0.3 or self.channels[first] > 20:
            call = f"{self.choice(('Neg', 'Abs', 'Floor'))}({first})"
        elif pick < 0.45:
            call = f"Sub({first}, {self.choice(alike)})"
        elif pick < 0.55:
            self.nodes.append(f"[v{number}] v{number} = Flatten({first})")
            self.nodes.append(f"[f{number}] f{number} = Neg(v{number})")
            call = f"Reshape(f{number}, image)"
        else:
            count = self.randrange(2, len(known)) if len(known) > 2 else 1
            operands = self.sample(known, count)
            self.channels[name] = sum(self.channels[n] for n in operands)
            call = f"Concat<axis = 1>({', '.join(operands)})"
        self.nodes.append(f"[n{number}] {name} = {call}")


@pytest.mark.parametrize("reuses", [False, True], ids=["", "packed"])
def test_whatever_is_joined_wherever(reuses: bool) -> None:
    """Random graphs, nodes of which the reference executes here and there: equal to the bit."""
    joined = 0
    for seed in range(50):
        dice = Dice(seed)
        model = dice.model(nodes=18)
        away = {str(node.name) for node in model.graph if dice.random() < 0.15}
        x = dice_input(seed)
        executor = lowered(model, away, reuses=reuses)
        here = [n for n in model.graph if n.op_type == "Concat" and n.name not in away]
        joined += len(here) - [*kernels(executor.program)].count("Concat")
        expected = evaluate(model, {"x": x})
        for name, result in executor.run({"x": x}).items():
            np.testing.assert_array_equal(result, expected[name], err_msg=f"{seed} {name}")
    assert joined > 25


def dice_input(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(SHAPE, np.float32)
