"""Trainers follow plans: the same loss curve, states where they are written, exact resume."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import ModelError, NonFiniteLoss, UsageError
from coexec.core.events import COPY, Trace
from coexec.core.plan import Plan
from coexec.core.program import Launch, Read, Wait
from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.planning.planner import PlanOptions, plan_training
from coexec.planning.replanning import training_planner
from coexec.session import legalise
from coexec.zoo.builder import Net, conv, linear
from tests.pipeline.small import FEATURES, arrays, network
from tests.runtimes import THOROUGH

BATCH = 8
DEVICE = THOROUGH[0]


def trainer_on(specs: list[str], plan: Plan | None = None, **options: object) -> coexec.Trainer:
    model = coexec.load(network(dropout=True))
    how = SGD(0.05, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, specs, plan=plan, **options)  # type: ignore[arg-type]


def divided(specs: list[str], first: int = 5) -> Plan:
    """``first`` of eight samples on the first processor; updates alternate."""
    trainer = trainer_on(specs)
    names = [name for name in trainer.processors if name != "reference"] + ["reference"]
    step = trainer.build_step({"x": np.zeros((BATCH, FEATURES), np.float32)})
    nodes = list(legalise(step.model, trainer.processors).graph)
    homes = {
        str(node.name): names[i % 2 if node.metadata_props.get(PHASE) == "optimizer" else 0]
        for i, node in enumerate(nodes)
    }
    return Plan(homes, batch={names[0]: first, names[1]: BATCH - first})


def losses(trainer: coexec.Trainer, steps: range) -> Array:
    data = arrays(64)
    found = []
    for step in steps:
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % 64
        found.append(trainer.step({"x": data["x"][rows]}, data["labels"][rows]))
    return np.array(found)


@pytest.mark.parametrize("runtime", THOROUGH)
def test_a_divided_batch_follows_the_loss_curve_of_one_processor(runtime: str) -> None:
    alone, both = trainer_on(["reference"]), trainer_on([runtime], divided([runtime, "reference"]))
    expected, found = losses(alone, range(12)), losses(both, range(12))
    assert set(both.plan.processors.values()) == set(both.followed.named)  # type: ignore[union-attr]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    state, other = alone.state(), both.state()
    for name, array in state.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    x = arrays(BATCH)["x"]
    np.testing.assert_allclose(
        both.predict({"x": x})["y"], alone.predict({"x": x})["y"], rtol=1e-3, atol=1e-4
    )


def test_states_live_where_they_are_written() -> None:
    both = trainer_on([DEVICE], divided([DEVICE, "reference"]))
    losses(both, range(1))
    homes = {b.name: b.processor for b in both.program.buffers if b.role == "state"}
    writers = {}
    for node in both.step_graph.model.graph:
        for value in node.outputs:
            old = both.step_graph.state.get(str(value.name))
            if old is not None:
                writers[old] = both.plan.processors[str(node.name)]
    assert writers.items() <= homes.items()
    assert len(set(writers.values())) == 2


def test_states_that_two_processors_read_are_shared_and_not_copied() -> None:
    both = trainer_on([DEVICE], divided([DEVICE, "reference"]))
    losses(both, range(2))
    states = set(both.program.state)
    lent = [spec for spec in both.program.buffers if spec.shares in states]
    assert {spec.processor for spec in lent} == {DEVICE, "reference"}
    trace, data = Trace(), arrays(BATCH)
    both.step({"x": data["x"]}, data["labels"], trace)
    copied = max(event.bytes for event in trace.leaves() if event.kind == COPY)
    assert copied <= max(data["x"].nbytes, data["labels"].nbytes)
    # Each processor gives back what it read before the other one writes there.
    reads = [step.tensor for step in both.program.instructions if isinstance(step, Read)]
    back = {name.partition("@")[2] for name in reads if "#back" in name}
    assert back == {DEVICE, "reference"}


def test_the_loss_is_looked_at_while_processors_go_on_and_updates_wait_for_no_update() -> None:
    both = trainer_on([DEVICE], divided([DEVICE, "reference"]))
    losses(both, range(1))
    steps = both.program.instructions
    gate = next(i for i, step in enumerate(steps) if isinstance(step, Wait) and step.gate)
    seen = next(
        i
        for i, step in enumerate(steps)
        if isinstance(step, Read) and step.tensor == both.step_graph.loss
    )
    assert any(isinstance(step, Launch) for step in steps[seen:gate])
    backs = [i for i, step in enumerate(steps) if isinstance(step, Read) and "#back" in step.tensor]
    first = next(i for i in range(gate, len(steps)) if isinstance(steps[i], Launch))
    assert backs
    assert all(gate < back < first for back in backs)


def test_a_batch_without_a_finite_loss_changes_nothing() -> None:
    both, other = (trainer_on([DEVICE], divided([DEVICE, "reference"])) for _ in range(2))
    expected, first = losses(other, range(4)), losses(both, range(2))
    data = arrays(BATCH)
    with pytest.raises(NonFiniteLoss):
        both.step({"x": np.full_like(data["x"], np.nan)}, data["labels"])
    np.testing.assert_allclose([*first, *losses(both, range(2, 4))], expected, rtol=1e-4)


def test_states_stay_where_a_program_before_has_put_them() -> None:
    """A prediction comes first: its states lie in memory of the device, and are copied then."""
    alone, both = trainer_on(["reference"]), trainer_on([DEVICE], divided([DEVICE, "reference"]))
    x = arrays(BATCH)["x"]
    both.predict({"x": x})
    np.testing.assert_allclose(losses(both, range(4)), losses(alone, range(4)), rtol=1e-3)


def test_a_training_resumes_with_another_plan() -> None:
    whole = trainer_on(["reference"])
    expected = losses(whole, range(9))
    first = trainer_on([DEVICE], divided([DEVICE, "reference"]))
    start = losses(first, range(4))
    second = trainer_on(["reference"])
    second.load_state(first.state(), 4)
    middle = losses(second, range(4, 6))
    third = trainer_on([DEVICE], divided([DEVICE, "reference"], first=2))
    third.load_state(second.state(), 6)
    found = [*start, *middle, *losses(third, range(6, 9))]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_plans_of_other_steps_are_refused() -> None:
    plan = divided([DEVICE, "reference"])
    with pytest.raises(UsageError, match="whole, unpaged steps"):
        trainer_on([DEVICE], plan, micro_batches=2)


@pytest.mark.parametrize(
    "options",
    [{"clip_norm": 1.0}, {"trainable": ["fc2*"]}],
    ids=lambda options: next(iter(options)),
)
def test_a_plan_of_a_step_with_other_options_says_so(options: dict[str, object]) -> None:
    trainer = trainer_on([DEVICE], divided([DEVICE, "reference"]), **options)
    with pytest.raises(ModelError) as caught:
        losses(trainer, range(1))
    text = str(caught.value)
    assert text.startswith("the plan is not of this model: ")
    assert "may have other options than were planned (optimizer, --lora, " in text
    assert text.endswith("train --processors A,B plans the step as it is")


def test_a_plan_of_another_model_says_nothing_of_options() -> None:
    plan = divided([DEVICE, "reference"])
    others = {f"other_{name}": where for name, where in plan.processors.items()}
    trainer = trainer_on([DEVICE], Plan(others, batch=plan.batch))
    with pytest.raises(ModelError) as caught:
        losses(trainer, range(1))
    assert str(caught.value).endswith(", ...)")


def test_the_last_processor_left_gets_everything() -> None:
    trainer = trainer_on([DEVICE])
    feeds = {"x": np.zeros((BATCH, FEATURES), np.float32)}
    planner = training_planner(trainer, feeds, PlanOptions("batch_parallel", 0.0))
    found = planner({"reference": 2.0})
    assert found.plan.named == ("reference",)
    assert found.busy_us.keys() == {"reference"}
    assert found.busy_us["reference"] == pytest.approx(
        2.0 * planner({"reference": 1.0}).busy_us["reference"]
    )


def test_a_batch_that_cannot_be_divided_says_why() -> None:
    model = coexec.load(zoo.build("lenet5", batch=16))
    specs = [DEVICE, "reference"]
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.01), specs)
    shape = zoo.CATALOG["lenet5"].input_shape
    feeds = {"x": np.zeros((16, *shape), np.float32)}
    how = PlanOptions("batch_parallel", 0.0)
    with pytest.raises(UsageError, match="two processors"):
        # The reference computes on the very cores of a CPU's driver.
        plan_training(trainer, feeds, how)


def test_a_plan_names_equal_gradients_of_two_layers_once() -> None:
    """Where the results of both are added, they are merged: the plan is of the merged step."""
    net = Net("twins", [None, 4, 4, 4], seed=0)
    both = [conv(net, net.x, name, (4, 4), (1, 1)) for name in ("one", "two")]
    pooled = net.op("GlobalAveragePool", "pool", [net.op("Add", "add", both)])
    flat = net.op("Flatten", "flat", [pooled], {"axis": 1})
    model = coexec.load(net.finish(linear(net, flat, "head", (4, 3)), 3))
    alone = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), ["reference"])
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 4, 4, 4)).astype(np.float32)}
    step = alone.build_step(feeds).model
    names = [str(node.name) for node in legalise(step, alone.processors).graph]
    placed = alone.with_plan(Plan(dict.fromkeys(names, "reference")))
    labels = np.array([0, 1, 2, 0])
    assert placed.step(feeds, labels) == alone.step(feeds, labels)
