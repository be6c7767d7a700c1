"""Programs whose processors meet within kernels come to an end, whatever else they wait for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.autodiff.step import StepGraph
from coexec.core.plan import Plan
from coexec.core.processor import ProcessorSpec, Runner
from coexec.core.program import MEETING, Program, Write
from coexec.ops.builder import PHASE
from coexec.passes.order_for_memory import order_for_memory
from coexec.passes.rematerialise import rematerialise
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.session import legalise
from coexec.steps.resident import ResidentPrograms
from tests.program_course import check_course

BATCH = {"a": 2, "b": 1}


class Meeting(ReferenceProcessor):
    """The reference, as if its operators could wait for those of another one.

    If it ``lends``, others read in its arena.
    """

    def __init__(self, name: str, *, lends: bool) -> None:
        super().__init__()
        self.name, self.lends = name, lends

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "test")

    def meets(self, other: Runner) -> bool:
        return True

    def sees_host_memory(self) -> bool:
        return self.lends


PAIRS = {lends: {name: Meeting(name, lends=lends) for name in BATCH} for lends in (False, True)}


@cache
def step() -> StepGraph:
    """A training step with batch norms, residuals and updates large enough to come early."""
    model = coexec.load(zoo.build("resnet18", batch=None))
    how = SGD(0.01, momentum=0.9)
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), how, ["reference"])
    return trainer.build_step({"x": np.zeros((sum(BATCH.values()), 3, 32, 32), np.float32)})


def lowered(kinds: frozenset[str], *, early: bool, lends: bool) -> Program:
    """The step in shares; results of forward operators of these kinds are made again."""
    graph = replace(step(), model=step().model.clone(), early=early)
    model = legalise(graph.model.clone(), PAIRS[lends])
    order_for_memory(model.graph, graph.state, early=early)
    names = tuple(name for node in model.graph for name in again(node, kinds))
    rematerialise(model.graph, names)
    homes = {str(n.name): list(BATCH)[i % 2] for i, n in enumerate(model.graph)}
    plan = Plan(homes, batch=BATCH, recompute=names, early=early)
    programs = ResidentPrograms(PAIRS[lends], follow=plan)
    return programs.lower("step", graph, builds=False).program


def again(node: ir.Node, kinds: frozenset[str]) -> Iterator[str]:
    if node.metadata_props.get(PHASE) == "forward" and node.op_type in kinds:
        yield str(node.outputs[0].name)


@pytest.mark.parametrize("lends", [False, True], ids=["rooms", "arenas"])
@pytest.mark.parametrize("early", [False, True], ids=["together", "early"])
@pytest.mark.parametrize(
    "kinds",
    [(), ("Relu",), ("BatchNormalization", "Relu"), ("Conv", "BatchNormalization", "Relu", "Add")],
    ids=["nothing", "relu", "norms", "all"],
)
def test_processors_that_meet_never_wait_for_each_other_in_a_circle(
    kinds: tuple[str, ...], early: bool, lends: bool
) -> None:
    program = lowered(frozenset(kinds), early=early, lends=lends)
    assert any(buffer.role == MEETING for buffer in program.buffers)
    check_course(program, step().state)
    if kinds or early:
        # Tensors between processors still take over the memory of those that were read.
        backs = (s.tensor for s in program.instructions if isinstance(s, Write))
        read = {name.partition("#back")[0] for name in backs if "#back" in name}
        assert read.difference(program.state)
