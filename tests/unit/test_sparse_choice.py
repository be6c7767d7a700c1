"""Choosing parameters by contribution per byte, on the reference processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.contribution import StepMemory, choose_by_contribution, squared
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import Adam
from coexec.autodiff.selection import Candidates
from coexec.base.errors import UsageError
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, type_of
from coexec.ops.table import OPERATORS
from coexec.passes.schedule import schedule
from coexec.training.data import Dataset
from coexec.training.sparse_choice import (
    SparseChoice,
    choose_parameters,
    measure_contributions,
    parse_auto,
)
from tests.gradient.test_zoo_gradients import CASES, batch, build, gradients

SAMPLES = 8


def trainer(trainable: Sequence[str] = (), processor: str = "reference") -> coexec.Trainer:
    model = coexec.load(zoo.build("digits_cnn", width=4))
    return coexec.Trainer(
        model, SoftmaxCrossEntropy(), Adam(), [processor], trainable=tuple(trainable)
    )


@pytest.fixture
def data(rng: np.random.Generator) -> Dataset:
    x = rng.standard_normal((SAMPLES, 1, 8, 8), np.float32)
    return Dataset({"x": x}, rng.integers(0, 10, SAMPLES))


def memory_of(made: coexec.Trainer, data: Dataset) -> StepMemory:
    step = made.build_step(data.inputs)
    schedule(step.model.graph)
    states = {
        name: sum(a.nbytes for key, a in step.initial.items() if key.startswith(f"{name}#"))
        for name in step.gradients
    }
    return StepMemory(step, states)


def layers_of(made: coexec.Trainer) -> list[list[str]]:
    found = Candidates(made.model).layers().values()
    return [[str(value.name) for value in layer] for layer in found]


def test_the_estimate_for_a_subset_is_that_of_the_pruned_graph(data: Dataset) -> None:
    whole = memory_of(trainer(), data)
    for items in (("fc2.*",), ("bias",), ("conv2.weight", "bn3.*"), ("conv1.weight",)):
        pruned = memory_of(trainer(items), data)
        # Frozen parameters are constants of the pruned graph, not states: they are there as well.
        frozen = sum(
            type_of(value).nbytes
            for value in Candidates(trainer().model).values
            if str(value.name) not in pruned.names
        )
        assert whole.peak(pruned.names) == pruned.peak(pruned.names) + frozen, items


@pytest.mark.parametrize("items", [(), ("fc2.*",), ("conv1.weight", "bn3.*")])
def test_the_estimate_is_what_is_live_at_the_fullest_node(
    data: Dataset, items: Sequence[str]
) -> None:
    """Counted node by node: a tensor lives from where it is made to its last reader."""
    made = trainer(items)
    step = made.build_step(data.inputs)
    schedule(step.model.graph)
    nodes = [n for n in step.model.graph if n.metadata_props.get(PHASE) != "optimizer"]
    shown: dict[ir.Value, ir.Value] = {}
    alive: dict[ir.Value, range] = {}
    for place, node in enumerate(nodes):
        operands = [value for value in node.inputs if value is not None and value in shown]
        for value in operands:
            alive[shown[value]] = range(alive[shown[value]].start, place + 1)
        view = OPERATORS[call_of(node).identifier].view and operands
        for value in node.outputs:
            shown[value] = shown[operands[0]] if view else value
            alive.setdefault(shown[value], range(place, place + 1))
    for name in step.gradients.values():
        value = next(v for v in shown if v.name == name)
        alive[shown[value]] = range(alive[shown[value]].start, len(nodes))
    most = max(
        sum(type_of(value).nbytes for value, span in alive.items() if value.name and place in span)
        for place in range(len(nodes))
    )
    states = sum(array.nbytes for array in step.initial.values())
    memory = memory_of(made, data)
    assert memory.peak(memory.names) == most + states


def test_more_bytes_buy_more_contribution(data: Dataset) -> None:
    made = trainer()
    memory, layers = memory_of(made, data), layers_of(made)
    contributions = measure_contributions(made, data, SAMPLES)
    shares = []
    least, most = min(memory.peak([n]) for n in memory.names), memory.peak(memory.names)
    for part in (0.02, 0.2, 0.5, 1.0):
        budget = round(least + part * (most - least))
        chosen = choose_by_contribution(memory, contributions, layers, budget)
        assert chosen is not None
        assert chosen.nbytes == memory.peak(chosen.names) <= budget
        shares.append(chosen.share)
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == pytest.approx(1.0)
    assert choose_by_contribution(memory, contributions, layers, least - 1) is None


def test_of_two_parameters_that_cost_alike_the_one_that_contributes_is_chosen(
    data: Dataset,
) -> None:
    made = trainer()
    memory, layers = memory_of(made, data), layers_of(made)
    contributions = dict.fromkeys(memory.names, 0.0) | {"bn3.weight": 1.0}
    least = memory.peak(["bn3.weight"])
    chosen = choose_by_contribution(memory, contributions, layers, least)
    assert chosen is not None
    assert "bn3.weight" in chosen.names
    assert chosen.share == 1.0


def test_what_contributes_alike_ends_the_backward_pass_early(data: Dataset) -> None:
    made = trainer()
    memory, layers = memory_of(made, data), layers_of(made)
    contributions = dict.fromkeys(memory.names, 0.0) | {"fc2.weight": 1.0}
    chosen = choose_by_contribution(memory, contributions, layers, memory.peak(memory.names))
    assert chosen is not None
    assert chosen.share == 1.0
    assert set(chosen.names) == set(layers[-1])


def test_many_cheap_parameters_are_worth_more_than_a_dear_one(data: Dataset) -> None:
    made = trainer()
    memory, layers = memory_of(made, data), layers_of(made)
    dear = "fc1.weight"
    cheap = [name for name in memory.names if name != dear]
    contributions = dict.fromkeys(cheap, 1.0) | {dear: 2.0}
    chosen = choose_by_contribution(memory, contributions, layers, memory.peak(cheap))
    assert chosen is not None
    assert set(chosen.names) == set(cheap)


def test_contributions_are_squared_gradients() -> None:
    case = next(case for case in CASES if case.name == "digits_cnn")
    feeds, labels = batch(case, "float32")
    made = coexec.Trainer(build(case, "float32"), case.loss, Adam(), ["reference"])
    found = measure_contributions(made, Dataset(feeds, labels), len(labels))
    expected = squared(gradients(case, "reference", "float32"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_the_planned_step_fits_the_budget(data: Dataset) -> None:
    whole = trainer().planned_bytes(data.inputs)
    least = trainer(("fc2.bias",)).planned_bytes(data.inputs)
    budget = (whole + least) // 2
    choice = choose_parameters(trainer, data, SAMPLES, budget)
    assert choice.full_bytes == whole
    assert least <= choice.planned_bytes <= budget
    made = trainer(choice.trainable)
    made.step(data.inputs, data.labels)
    assert made.peak_bytes == choice.planned_bytes
    assert made.step_graph.trainable == tuple(n for n in trainer_names() if n in choice.names)
    assert 0 < choice.share < 1
    assert choose_parameters(trainer, data, SAMPLES, budget) == choice
    assert choose_parameters(trainer, data, SAMPLES, whole).share == 1.0


def test_a_budget_below_every_parameter_is_refused(data: Dataset) -> None:
    with pytest.raises(
        UsageError, match=r"no parameter can be trained in 1\.0 KiB: .* alone takes"
    ):
        choose_parameters(trainer, data, SAMPLES, 1024)


def test_the_item_is_an_amount_of_memory_and_stands_alone() -> None:
    assert parse_auto(("conv*", "bias")) is None
    assert parse_auto(("auto:64MiB",)) == 64 * 2**20
    with pytest.raises(UsageError, match="no amount of memory"):
        parse_auto(("auto:much",))
    with pytest.raises(UsageError, match="leave out the other items"):
        parse_auto(("auto:64MiB", "bias"))


def test_items_of_a_choice_select_these_names_alone() -> None:
    choice = SparseChoice(("bias", "a[0]", "fc*"), 1.0, 1, 1)
    assert choice.trainable == ("[b]ias", "[a][[]0]", "[f]c[*]")


def trainer_names() -> list[str]:
    return [str(value.name) for value in Candidates(trainer().model).values]
