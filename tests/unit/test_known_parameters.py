"""Weights, buffers and constants of a file that tells them apart; scalars."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

import coexec
from coexec.autodiff.selection import select
from coexec.base.errors import GradientError
from tests.graphs import parse
from tests.runtimes import THOROUGH


def told(kinds: dict[str, str]) -> ir.Model:
    """y = (x * w + table) * scale, as PyTorch's newer exporter tells of its initializers."""
    graph = (
        "g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}, float[4] table = {1, 1, 1, 1}, "
        "float scale = {2}> { a = Mul(x, w) b = Add(a, table) y = Mul(b, scale) }"
    )
    proto = parse(graph)
    for name, kind in kinds.items():
        value = proto.graph.value_info.add()
        value.CopyFrom(helper.make_tensor_value_info(name, 1, [] if name == "scale" else [4]))
        entry = value.metadata_props.add()
        entry.key, entry.value = "pkg.torch.export.graph_signature.InputSpec.kind", kind
    return coexec.load(proto)


def names(model: ir.Model, *trainable: str) -> list[str]:
    return [each.name for each in select(model, trainable)]


def test_what_an_exporter_calls_no_parameter_is_not_trained() -> None:
    kinds = {"w": "PARAMETER", "table": "BUFFER", "scale": "PARAMETER"}
    assert names(told(kinds)) == ["w", "scale"]
    assert names(told(kinds | {"table": "CONSTANT_TENSOR"})) == ["w", "scale"]
    with pytest.raises(GradientError, match="matches no parameter; known: w, scale"):
        names(told(kinds), "table")


def test_scalars_of_unknown_kind_are_trained_if_they_are_named() -> None:
    assert names(told({})) == names(told({}), "*") == ["w", "table"]
    assert names(told({}), "scale") == ["scale"]
    assert names(told({}), "w", "scale") == ["w", "scale"]


@pytest.mark.parametrize("runtime", ["reference", *THOROUGH])
def test_scalars_train(runtime: str) -> None:
    """d/ds of the mean of (s (x w + t))^2 is 2 s times the mean of (x w + t)^2."""
    loss, optimizer = coexec.losses.MeanSquaredError(), coexec.optim.SGD(0.01)
    trainer = coexec.Trainer(told({}), loss, optimizer, [runtime], trainable=["scale"])
    x = np.ones(4, np.float32)
    trainer.step({"x": x}, np.zeros(4, np.float32))
    expected = 2 - 0.01 * 2 * 2 * float((np.arange(2.0, 6.0) ** 2).mean())
    assert trainer.state()["scale"] == pytest.approx(expected, rel=1e-6)
