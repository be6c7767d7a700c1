"""Tensors that wait in a processor's arena between two of its regions, instead of in buffers."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.plan import Plan
from coexec.core.program import BOUNDARY, SCRATCH, Launch
from coexec.core.types import Array
from coexec.runtime.mode import ExecutionMode
from tests.graphs import parse
from tests.runtimes import THOROUGH

RUNTIME = THOROUGH[0]


def trained(mode: ExecutionMode) -> coexec.Trainer:
    """A small network after two steps."""
    rng = np.random.default_rng(0)
    model = coexec.load(zoo.build("mlp", batch=8))
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), [RUNTIME], mode=mode)
    for _ in range(2):
        x = rng.standard_normal((8, 784), np.float32)
        trainer.step({"x": x}, rng.integers(0, 10, 8))
    return trainer


def test_gradients_wait_in_the_arena_for_the_optimizer() -> None:
    trainer = trained(ExecutionMode())
    program = trainer.program
    assert not [spec for spec in program.buffers if spec.role == BOUNDARY]
    backward, update = program.executables
    assert set(backward.carried) == set(trainer.step_graph.gradients.values())
    assert set(update.continued) == set(backward.carried)
    ends = [offset + program.types[name].nbytes for name, offset in backward.carried.items()]
    arena = next(spec for spec in program.buffers if spec.role == SCRATCH)
    assert max(ends) <= arena.nbytes


def test_buffers_of_their_own_give_the_same_parameters_in_more_memory() -> None:
    carried, apart = trained(ExecutionMode()), trained(ExecutionMode(synchronise="operator"))
    assert [spec for spec in apart.program.buffers if spec.role == BOUNDARY]
    assert carried.peak_bytes < apart.peak_bytes
    for name, value in carried.state().items():
        np.testing.assert_allclose(value, apart.state()[name], 1e-5, 1e-7)


@pytest.mark.parametrize("readers", ["late, last", "last, late"])
def test_regions_in_between_leave_alone_what_waits(readers: str, rng: np.random.Generator) -> None:
    """Three regions with an arena: one makes ``kept``, one works beside it, one reads it."""
    model = coexec.load(
        parse(
            f"""g (float[4, 64] x) => (float[4, 64] y) {{
                kept = Softmax(x)
                first = Exp(x)
                away1 = Neg(first)
                late = Softmax(away1)
                sum = Add(late, late)
                away2 = Neg(sum)
                last = Add(away2, kept)
                y = Sub({readers})
            }}""",
        )
    )
    names = [str(node.name) for node in model.graph]
    away = {name for node, name in zip(model.graph, names, strict=True) if node.op_type == "Neg"}
    plan = Plan({name: "reference" if name in away else RUNTIME for name in names})
    session = coexec.compile(model, [RUNTIME], plan=plan)
    x = rng.standard_normal((4, 64)).astype(np.float32)
    result = session.run({"x": x})["y"]

    late = softmax(-np.exp(x))
    last = -2 * late + softmax(x)
    expected = last - late if readers == "last, late" else late - last
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6)
    arenas = [e for e in session.program.executables if e.processor == RUNTIME]
    assert len(arenas) == 3
    assert set(arenas[0].carried) == {"kept"}
    assert "kept" in arenas[2].continued
    assert "late" in arenas[2].continued
    assert len([s for s in session.program.instructions if isinstance(s, Launch)]) == 5


def softmax(x: Array) -> Array:
    """Along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
