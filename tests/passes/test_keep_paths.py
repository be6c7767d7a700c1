"""Stochastic depth as PyTorch's exporters write it: in inference form every path is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import coexec
from coexec.autodiff.losses import MeanSquaredError
from coexec.autodiff.optimizers import SGD
from coexec.core.types import Array
from coexec.frontend import load
from coexec.passes.inference_mode import inference_mode
from tests.graphs import parse
from tests.runtimes import THOROUGH

LIKE = "zeros = ConstantOfShape<value = float[1] {0}>(shape) u = RandomUniformLike(zeros)"
FORMS = {
    "a comparison (timm, torchvision)": (
        f"{LIKE} kept = Less(u, p) mask = Cast<to = 1>(kept) share = Div(mask, p) "
        "path = Mul(h, share)"
    ),
    "a floor (transformers)": (
        f"{LIKE} moved = Add(p, u) mask = Floor(moved) more = Div(h, p) path = Mul(more, mask)"
    ),
}
OTHERS = {
    "a share that is none": FORMS["a comparison (timm, torchvision)"].replace("u, p", "u, q"),
    "another range": FORMS["a floor (transformers)"].replace("Like(", "Like<high = 2.0>("),
}


def graph(path: str, output: str = "Add(x, path)") -> onnx.ModelProto:
    return parse(
        "g (float[6, 3] x) => (float[6, 3] y) <float[3] w = {1, 2, 3}, float p = {0.8}, "
        f"float q = {{0.5}}, int64[2] shape = {{6, 1}}> {{ h = Mul(x, w) {path} y = {output} }}"
    )


def operators(model: onnx.ModelProto) -> list[str]:
    """Operators in inference form."""
    loaded = load(model)
    inference_mode(loaded)
    return [node.op_type for node in loaded.graph]


@pytest.mark.parametrize("form", FORMS)
def test_every_path_is_kept(form: str) -> None:
    assert operators(graph(FORMS[form])) == ["Mul", "Add"]


@pytest.mark.parametrize("form", OTHERS)
def test_other_random_numbers_are_drawn(form: str) -> None:
    assert "RandomUniformLike" in operators(graph(OTHERS[form]))


def test_a_path_may_be_an_output(rng: np.random.Generator) -> None:
    model = load(graph(FORMS["a floor (transformers)"], "Identity(path)"))
    inference_mode(model)
    assert [value.name for value in model.graph.outputs] == ["y"]
    x = rng.standard_normal((6, 3), np.float32)
    y = coexec.compile(model, ["reference"]).run({"x": x})["y"]
    np.testing.assert_array_equal(y, x * np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("form", FORMS)
def test_steps_leave_paths_out_and_predictions_do_not(
    form: str, runtime: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    x: Array = rng.standard_normal((6, 3), np.float32)
    model = coexec.load(graph(FORMS[form]))
    trainer = coexec.Trainer(model, MeanSquaredError(), SGD(0.0, 0.0), [runtime])
    assert len({trainer.step({"x": x}, x) for _ in range(6)}) > 1
    expected = x + x * np.array([1, 2, 3], np.float32)
    np.testing.assert_allclose(trainer.predict({"x": x})["y"], expected, rtol=1e-6)
    trainer.save(tmp_path / "trained.onnx")
    saved = onnx.load(tmp_path / "trained.onnx")
    onnx.checker.check_model(saved, full_check=True)
    assert [node.op_type for node in saved.graph.node] == ["Mul", "Add"]
