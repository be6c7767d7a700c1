"""Order of the backward pass for less memory; updates that come early change the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, AdamW, Optimizer
from coexec.base.errors import NonFiniteLoss, UsageError
from coexec.core.plan import Plan
from coexec.core.program import Launch, Wait
from coexec.core.types import Array
from coexec.frontend import load
from coexec.ops.builder import PHASE
from coexec.passes import order_for_memory as ordering
from coexec.passes.order_for_memory import order_for_memory
from coexec.passes.updates import forward_first, replace_after_readers
from coexec.session import legalise
from tests.graphs import parse
from tests.pipeline.small import FEATURES, arrays, network
from tests.runtimes import THOROUGH

BATCH = 8


@pytest.fixture
def no_update_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter of a test's network counts as large."""
    monkeypatch.setattr(ordering, "SMALL", 0)


def trainer(processor: str, optimizer: Optimizer | None = None, **options: Any) -> coexec.Trainer:
    model = coexec.load(network(dropout=True))
    how = optimizer or SGD(0.05, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, [processor], **options)


def trained(learner: coexec.Trainer, steps: int = 4) -> dict[str, Array]:
    data = arrays(BATCH)
    for _ in range(steps):
        learner.step({"x": data["x"]}, data["labels"])
    return learner.state()


def assert_same_bits(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def marked(text: str, **phases: str) -> ir.Graph:
    graph = load(parse(text)).graph
    for node in graph:
        node.metadata_props[PHASE] = phases[str(node.name)]
    return graph


def names(graph: ir.Graph) -> list[str]:
    return [str(node.name) for node in graph]


def test_what_lets_an_activation_go_comes_first() -> None:
    """As the gradient of a weight does, which then need not wait beside that of the activation."""
    graph = marked(
        "g (float[64, 64] x, float[1, 64] v) => (float[64, 64] y, float[1, 64] w) "
        "{ [f] a = Mul(x, x) [d] d = Neg(a) [dx] e = MatMul(d, x) [dw] w = MatMul(v, a) "
        "[end] y = Abs(e) }",
        f="forward", d="backward", dx="backward", dw="backward", end="backward",
    )  # fmt: skip
    order_for_memory(graph, {})
    assert names(graph) == ["f", "d", "dw", "dx", "end"]


def test_a_step_in_another_order_has_the_same_nodes_and_is_legal() -> None:
    learner = trainer("reference")
    step = learner.build_step({"x": np.zeros((BATCH, FEATURES), np.float32)})
    graph = legalise(step.model, learner.processors).graph
    before = names(graph)
    order_for_memory(graph, step.state, early=True)
    assert sorted(names(graph)) == sorted(before)
    place = {node: index for index, node in enumerate(graph)}
    makers = [(v.producer(), node) for node in graph for v in node.inputs if v is not None]
    assert all(place[maker] < place[node] for maker, node in makers if maker is not None)


def test_an_update_waits_for_readers_of_the_old_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """``u`` has its gradient early, but ``b2`` still reads ``p``."""
    graph = marked(
        "g (float[64] x, float[64] p) => (float[64] n, float[64] y) "
        "{ [f] a = Mul(x, p) [b1] g = Neg(a) [b2] h = Mul(g, p) [b3] y = Abs(h) "
        "[u] n = Sub(p, g) }",
        f="forward", b1="backward", b2="backward", b3="backward", u="optimizer",
    )  # fmt: skip
    order_for_memory(graph, {"n": "p"}, early=True)
    assert names(graph) == ["f", "b1", "b2", "b3", "u"]  # 256 bytes are not worth a launch
    monkeypatch.setattr(ordering, "SMALL", 0)
    order_for_memory(graph, {"n": "p"}, early=True)
    assert names(graph) == ["f", "b1", "b2", "u", "b3"]


def test_readers_that_are_put_in_later_move_an_update_behind_them() -> None:
    graph = marked(
        "g (float[4] x, float[4] p) => (float[4] n, float[4] y, float[4] m) "
        "{ [f] a = Mul(x, p) [u] n = Sub(p, a) [copy] m = Neg(n) [again] y = Mul(x, p) }",
        f="forward", u="optimizer", copy="", again="recompute",
    )  # fmt: skip
    replace_after_readers(graph, {"n": "p"})
    assert names(graph) == ["f", "again", "u", "copy"]


def test_what_leads_to_the_forward_pass_comes_first_with_it_whatever_its_phase() -> None:
    """``f`` reads what ``near`` makes of what ``far`` makes."""
    graph = marked(
        "g (float[4] x) => (float[4] y, float[4] z) "
        "{ [late] y = Neg(x) [far] a = Abs(x) [near] b = Exp(a) [f] c = Mul(b, x) "
        "[back] z = Neg(c) }",
        late="backward", far="", near="", f="forward", back="backward",
    )  # fmt: skip
    forward_first(graph)
    assert names(graph) == ["far", "near", "f", "late", "back"]


@pytest.mark.usefixtures("no_update_is_small")
@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9), AdamW(0.01)], ids=repr)
@pytest.mark.parametrize("processor", ["reference", *THOROUGH])
def test_early_updates_change_the_same_bits(processor: str, optimizer: Optimizer) -> None:
    plain, early = (
        trainer(processor, optimizer, updates=updates) for updates in ("together", "early")
    )
    assert_same_bits(trained(early), trained(plain))
    steps = early.program.instructions
    gate = next(i for i, step in enumerate(steps) if isinstance(step, Wait) and step.gate)
    launches = [i for i, step in enumerate(steps) if isinstance(step, Launch)]
    assert launches[0] < gate < launches[1]
    assert len(launches) == 2
    if processor != "reference":
        assert not any(executable.carried for executable in early.program.executables)
        phases = [step.label.phase for step in early.program.executables[1].steps]  # type: ignore[attr-defined]
        assert phases.index("optimizer") < len(phases) - 1 - phases[::-1].index("backward")


@pytest.mark.usefixtures("no_update_is_small")
@pytest.mark.parametrize("processor", ["reference", *THOROUGH])
def test_a_loss_that_is_not_finite_changes_nothing_with_early_updates(processor: str) -> None:
    learner = trainer(processor, updates="early")
    before = trained(learner, 2)
    bad = np.full((BATCH, FEATURES), np.nan, np.float32)
    with pytest.raises(NonFiniteLoss, match="parameters are as before this step"):
        learner.step({"x": bad}, np.zeros(BATCH, np.int64))
    assert not learner.updating
    assert_same_bits(learner.state(), before)


@pytest.mark.usefixtures("no_update_is_small")
def test_micro_batches_add_to_their_sums_early() -> None:
    how: dict[str, Any] = {"micro_batches": 2, "clip_norm": 1.0}
    plain = trained(trainer(THOROUGH[0], **how))
    assert_same_bits(trained(trainer(THOROUGH[0], updates="early", **how)), plain)


def test_early_updates_are_refused_where_gradients_are_looked_at_together() -> None:
    with pytest.raises(UsageError, match="come early: clipping takes the norm of all gradients"):
        trainer("reference", updates="early", clip_norm=1.0)
    with pytest.raises(UsageError, match="come early: a step with one gradient too large"):
        trainer("reference", updates="early", precision="mixed")
    with pytest.raises(UsageError, match="updates 'late' are unknown; known: together, early"):
        trainer("reference", updates="late")
    with pytest.raises(UsageError, match="says when they update"):
        trainer("reference", updates="early", plan=Plan({}))
