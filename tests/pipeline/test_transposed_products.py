"""Training attention without copies of transposed probabilities, queries, keys and values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import losses, optim, zoo
from coexec.passes.transposed_products import Supports, read_transposed
from coexec.steps import resident
from tests.runtimes import THOROUGH


def trained(found: list[int], monkeypatch: pytest.MonkeyPatch, *, reads: bool) -> list[float]:
    """Losses of three steps; ``found`` learns how many products read transposed matrices."""

    def counted(graph: ir.Graph, supports: Supports) -> int:
        found.append(read_transposed(graph, supports) if reads else 0)
        return found[-1]

    monkeypatch.setattr(resident, "read_transposed", counted)
    model = zoo.build("vit_tiny", batch=None, image_size=16, features=24, depth=2, heads=2)
    trainer = coexec.Trainer(
        coexec.load(model), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), [THOROUGH[0]]
    )
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((4, 3, 16, 16), np.float32)}
    labels = rng.integers(0, 10, 4)
    return [float(trainer.step(feeds, labels)) for _ in range(3)]


def test_attention_trains_the_same_without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    with_copies: list[int] = []
    without: list[int] = []
    expected = trained(with_copies, monkeypatch, reads=False)
    found = trained(without, monkeypatch, reads=True)
    assert with_copies[0] == 0
    assert without[0] == 2 * 4  # blocks, and gradients of the two products in each
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[-1] < expected[0]
