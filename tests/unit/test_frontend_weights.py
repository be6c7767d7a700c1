"""Weights of large models lie in a file of coexec's own, equal to what was loaded."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import coexec
from coexec import losses, optim
from coexec.base.knobs import CACHE_DIR
from coexec.base.pages import let_go
from coexec.core.types import Array

ROWS, COLUMNS = 1024, 1030


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {"w": (ROWS, COLUMNS), "v": (COLUMNS, 130), "b": (130,)}
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}


def model_bytes(arrays: dict[str, Array]) -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Gemm", ["h", "v", "b"], ["y"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 130])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(whole.SerializeToString())


def lies_in_a_file(array: Array) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_large_weights_lie_in_a_file_and_stay_what_they_are() -> None:
    arrays = weights()
    loaded = coexec.load(model_bytes(arrays)).graph.initializers
    found = {name: loaded[name].const_value.numpy() for name in arrays}  # type: ignore[union-attr]
    assert {name: lies_in_a_file(array) for name, array in found.items()} == {
        "w": True,
        "v": True,
        "b": False,  # too small to be worth it
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        let_go(found[name])  # what is not resident is read again
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="read-only"):
        found["w"][0] = 0


def test_without_room_for_a_file_weights_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_DIR.name, str(tmp_path / "file"))
    arrays = weights()
    loaded = coexec.load(model_bytes(arrays)).graph.initializers["w"].const_value
    assert loaded is not None
    np.testing.assert_array_equal(loaded.numpy(), arrays["w"])
    assert not lies_in_a_file(loaded.numpy())
    assert "weights stay in memory" in caplog.text


def test_first_states_take_no_memory_and_trained_weights_no_file() -> None:
    model = coexec.load(model_bytes(weights()))
    loss, how = losses.SoftmaxCrossEntropy(), optim.SGD(0.1, momentum=0.9)
    trainer = coexec.Trainer(model, loss, how, ["reference"])
    feeds = {"x": np.ones((2, ROWS), np.float32)}
    initial = trainer.build_step(feeds).initial
    momenta = [array for name, array in initial.items() if "#" in name]
    assert momenta
    assert all(not any(array.strides) and not array.any() for array in momenta)
    trainer.step(feeds, np.array([0, 1]))
    trained = trainer.trained_model().graph.initializers["v"].const_value
    before = model.graph.initializers["v"].const_value
    assert trained is not None
    assert before is not None
    np.testing.assert_array_equal(before.numpy(), weights()["v"])
    assert np.abs(trained.numpy() - before.numpy()).max() > 0
