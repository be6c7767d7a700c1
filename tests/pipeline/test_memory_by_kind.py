"""Memory of a training step by kind, from its trace."""

from __future__ import annotations

import numpy as np

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.events import Trace
from coexec.report.memory import (
    ACTIVATIONS,
    DATA,
    GRADIENTS,
    OPTIMIZER,
    PARAMETERS,
    WORKSPACE,
    Usage,
    memory_over_time,
)
from tests.runtimes import THOROUGH

BATCH = 8


def usages(processor: str, model: str) -> tuple[coexec.Trainer, list[Usage]]:
    """Of the second step of a training."""
    loaded = coexec.load(zoo.build(model, batch=BATCH))
    trainer = coexec.Trainer(loaded, SoftmaxCrossEntropy(), SGD(0.1, momentum=0.9), [processor])
    x = np.zeros((BATCH, *zoo.CATALOG[model].input_shape), np.float32)
    trainer.step({"x": x}, np.zeros(BATCH, np.int64))
    trace = Trace()
    trainer.step({"x": x}, np.zeros(BATCH, np.int64), trace)
    return trainer, memory_over_time(trainer.program, trace)


def test_a_step_holds_each_kind_when_it_needs_it() -> None:
    trainer, found = usages(THOROUGH[0], "digits_cnn")
    program = trainer.program
    weights = sum(program.types[name].nbytes for name in trainer.step_graph.parameters)
    trained = sum(program.types[name].nbytes for name in trainer.step_graph.trainable)
    for usage in found:
        assert weights <= usage.kinds[PARAMETERS] < weights + 64, "and some numbers of the loss"
        assert usage.kinds[OPTIMIZER] == trained
        assert usage.kinds[DATA] >= BATCH * 64 * 4
        assert usage.nbytes <= trainer.peak_bytes
    assert GRADIENTS not in found[1].kinds, "the forward pass makes none"
    assert found[1].kinds[ACTIVATIONS] > 0
    assert max(usage.kinds.get(GRADIENTS, 0) for usage in found) >= trained
    assert max(usage.kinds.get(WORKSPACE, 0) for usage in found) > 0
    most = max(found, key=lambda usage: usage.nbytes)
    # The arena is as large as what is live at the fullest moment, up to alignment and gaps.
    assert 0.9 * trainer.peak_bytes < most.nbytes <= trainer.peak_bytes


def test_gradients_in_buffers_of_their_own_are_gradients_too() -> None:
    trainer, found = usages("reference", "mlp")
    sizes = [trainer.program.types[name].nbytes for name in trainer.step_graph.gradients.values()]
    assert max(usage.kinds.get(GRADIENTS, 0) for usage in found) == sum(sizes)
    assert found[-1].kinds.get(GRADIENTS, 0) == 0
