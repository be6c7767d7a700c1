"""Working memory as a choice: kernels that do with less, and what a budget makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.budget.techniques import Question, SmallWorkspace
from coexec.budget.variants import SPARED, spared
from coexec.core.types import Array, OpCall, TensorType
from coexec.memory.problem import StepNode, StepProblem
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import by_default, sparing
from coexec.processors.opencl.executable import OpenCLExecutable
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer
from tests.runtimes import THOROUGH, open_opencl

FACTS = DeviceFacts("cpu", "any", True, True, 4096, 1 << 15, 2, 64)
RECIPE = Recipe(SoftmaxCrossEntropy(), SGD(0.01, momentum=0.9))
RELU = OPERATORS["Relu"].typed(
    OpCall("Relu", (TensorType((8,), np.dtype(np.float32)),), version=21)
)


def in_slots(_call: OpCall, _facts: DeviceFacts, values: dict[str, int]) -> Lowering:
    return Lowering((), (100 * values["SLOTS"],))


FAMILY = KernelFamily(
    "made_up",
    ("Relu",),
    (
        Variant(
            "slots",
            in_slots,  # type: ignore[arg-type]
            space={"SLOTS": (8, 4, 2)},
            spares=({"SLOTS": 4}, {"SLOTS": 2}),
        ),
        Variant("naive", in_slots, space={"SLOTS": (1,)}),  # type: ignore[arg-type]
    ),
)


@pytest.mark.parametrize(("most", "slots"), [(1000, 8), (800, 8), (799, 4), (399, 2), (10, 2)])
def test_the_fastest_values_that_fit_are_taken_or_the_least(most: int, slots: int) -> None:
    choice = sparing(by_default, most)(FAMILY, RELU, FACTS)
    assert (choice.variant.name, choice.values["SLOTS"]) == ("slots", slots)


def test_only_what_works_in_less_memory_is_priced_higher() -> None:
    nodes = [StepNode(name, (), (i,), 8.0, workspace=100) for i, name in enumerate("abc")]
    usual = StepProblem(tuple(nodes), ("x", "y", "z"), (1, 1, 1))
    less = replace(usual, nodes=(nodes[0], replace(nodes[1], workspace=20), nodes[2]))
    assert [n.cost_us for n in spared(less, usual).nodes] == [8.0, SPARED * 8.0, 8.0]


def test_it_is_offered_once_and_only_where_nothing_else_fits() -> None:
    technique = SmallWorkspace()
    (offer,) = technique.offers(asked(RECIPE), RECIPE)
    assert offer.last_resort
    assert offer.recipe.workspace == technique.limit
    assert technique.refusal(asked(RECIPE)) == ""
    assert technique.refusal(asked(offer.recipe)) == "asked for already"
    with pytest.raises(UsageError, match="workspace"):
        replace(RECIPE, workspace=-1)


def asked(recipe: Recipe) -> Question:
    return Question(coexec.load(zoo.build("lenet5")), recipe, {})


def test_a_step_in_less_working_memory_changes_no_bit() -> None:
    """Its kernels work in less; parameters are the same to the last bit."""
    usual, less = trained(0), trained(1)
    assert less[0] < 0.9 * usual[0]
    for name, array in usual[1].items():
        np.testing.assert_array_equal(less[1][name], array, err_msg=name)


def trained(workspace: int) -> tuple[int, dict[str, Array]]:
    """Bytes that all kernels of a step work in, and the states after two steps."""
    recipe = replace(RECIPE, workspace=workspace)
    processors = {THOROUGH[0]: open_opencl(THOROUGH[0])}
    learner = Trainer(coexec.load(zoo.build("lenet5")), recipe, processors)
    rng = np.random.default_rng(0)
    for _ in range(2):
        learner.step({"x": rng.standard_normal((32, 1, 28, 28), np.float32)}, np.arange(32) % 10)
    compiled = learner._programs.training()
    assert compiled is not None
    executables = compiled.executor.program.executables
    steps = [s for each in executables if isinstance(each, OpenCLExecutable) for s in each.steps]
    assert steps
    return sum(step.label.workspace for step in steps), learner.state()
