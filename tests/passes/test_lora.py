"""Adapters: the model with fresh ones computes what it did, the merged one what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import MeanSquaredError, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.passes.lora import ADAPTERS, add_adapters, merge_adapters, parse_lora
from tests.graphs import parse
from tests.runtimes import THOROUGH

SMALL = {"image_size": 16, "features": 24, "depth": 1}


def vit() -> ir.Model:
    return coexec.load(zoo.build("vit_tiny", classes=5, **SMALL))


def adapted(rank: int = 2, pattern: str = "*", scale: float = 0.5) -> tuple[ir.Model, list[str]]:
    """A ViT of one block with adapters, and the weights that have them."""
    model = vit()
    return model, add_adapters(model, rank, pattern, scale=scale)


def trainer(model: ir.Model, processor: str = "reference") -> coexec.Trainer:
    optimizer = Adam(0.02)
    return coexec.Trainer(
        model, SoftmaxCrossEntropy(), optimizer, [processor], trainable=(ADAPTERS,)
    )


def data(rng: np.random.Generator) -> tuple[dict[str, Array], Array]:
    return {"x": rng.standard_normal((4, 3, 16, 16), np.float32)}, rng.integers(0, 5, 4)


def weights(model: ir.Model) -> dict[str, Array]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def test_fresh_adapters_change_nothing(rng: np.random.Generator) -> None:
    feeds, _ = data(rng)
    model, names = adapted()
    assert "head.weight" in names  # Gemm, (out, in)
    assert any("mlp" in name for name in names)  # MatMul, (in, out)
    plain = coexec.compile(vit(), ["reference"]).run(feeds)["y"]
    np.testing.assert_array_equal(coexec.compile(model, ["reference"]).run(feeds)["y"], plain)


def test_only_adapters_are_trained_and_the_merged_model_is_plain(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    feeds, labels = data(rng)
    model, names = adapted()
    made = trainer(model)
    losses = [made.step(feeds, labels) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    assert set(made.step_graph.trainable) == {f"{n}#lora_{each}" for n in names for each in "ab"}
    made.save(tmp_path / "merged.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "merged.onnx"), full_check=True)
    merged = coexec.load(tmp_path / "merged.onnx")
    original = vit()
    assert [n.op_type for n in merged.graph] == [n.op_type for n in original.graph]
    assert merged.graph.initializers.keys() == original.graph.initializers.keys()
    before, after = weights(original), weights(merged)
    for name, value in before.items():
        change = after[name].astype(np.float64) - value
        rank = np.linalg.matrix_rank(change, tol=1e-5) if value.ndim == 2 else int(change.any())
        assert rank == (2 if name in names else 0), name
    ours = made.predict(feeds)["y"]
    theirs = coexec.compile(merged, ["reference"]).run(feeds)["y"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_adapters_of_opencl_are_those_of_the_reference(rng: np.random.Generator) -> None:
    feeds, labels = data(rng)
    states = []
    for processor in ("reference", THOROUGH[0]):
        made = trainer(adapted(pattern="head.*")[0], processor)
        for _ in range(2):
            made.step(feeds, labels)
        states.append(made.state())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_training_goes_on_from_the_state_of_adapters(rng: np.random.Generator) -> None:
    feeds, labels = data(rng)
    through, first, second = (trainer(adapted()[0]) for _ in range(3))
    losses = [through.step(feeds, labels) for _ in range(3)]
    begun = [first.step(feeds, labels)]
    state = first.state()
    assert all("#lora_" in name for name in state)  # all that a checkpoint holds
    second.load_state(state, first.steps)
    assert begun + [second.step(feeds, labels) for _ in range(2)] == losses


def test_a_model_without_adapters_stays_as_it_is() -> None:
    model = vit()
    assert merge_adapters(model) == 0


def test_merging_at_once_gives_the_model_back() -> None:
    model, names = adapted()
    assert merge_adapters(model) == len(names)
    before, after = weights(vit()), weights(model)
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert [str(v.name) for v in model.graph.outputs] == ["y"]


def test_a_weight_that_something_else_reads_is_left_out() -> None:
    tied = coexec.load(zoo.build("mlp", sizes=(8, 6)))
    first = next(node for node in tied.graph if node.op_type == "Gemm")
    weight = first.inputs[1]
    assert weight is not None
    tied.graph.append(ir.node("Identity", [weight], name="other"))
    assert str(weight.name) not in add_adapters(tied, 2)


LINEAR_LAYERS = """
    g (float[4, 3] x) => (float[4, 2] y)
    <float[5, 3] first = {FIRST}, float[2, 5] second = {SECOND}>
    {
        turned = Transpose<perm = [1, 0]>(first)
        h = MatMul(x, turned)
        again = Transpose(second)
        y = Gemm(h, again)
    }
"""
"""Linear layers as PyTorch's exporters write them in training form: weights are (out, in)."""


def linear_layers(rng: np.random.Generator) -> ir.Model:
    text = LINEAR_LAYERS
    for name in ("FIRST", "SECOND"):
        size = 15 if name == "FIRST" else 10
        text = text.replace(name, ", ".join(map(str, rng.standard_normal(size).round(3))))
    return coexec.load(parse(text))


def test_weights_that_are_transposed_before_their_products_are_adapted(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = linear_layers(rng)
    assert add_adapters(model, 2, scale=2.0) == ["first", "second"]
    made = coexec.Trainer(model, MeanSquaredError(), SGD(0.1), ["reference"], trainable=(ADAPTERS,))
    x, labels = rng.standard_normal((4, 3), np.float32), rng.standard_normal((4, 2), np.float32)
    losses = [made.step({"x": x}, labels) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    state = made.state()
    assert state["first#lora_a"].shape == (3, 2)
    assert state["second#lora_b"].shape == (2, 2)
    made.save(tmp_path / "merged.onnx")
    merged = coexec.load(tmp_path / "merged.onnx")
    for name, value in weights(model).items():
        if "#" not in name:
            added = 2.0 * state[f"{name}#lora_a"] @ state[f"{name}#lora_b"]
            np.testing.assert_allclose(weights(merged)[name], value + added.T, rtol=1e-5, atol=1e-6)
    ours, theirs = made.predict({"x": x})["y"], coexec.compile(merged, ["reference"]).run({"x": x})
    np.testing.assert_allclose(theirs["y"], ours, rtol=1e-4, atol=1e-5)


def test_a_weight_whose_transpose_something_else_reads_is_left_out(
    rng: np.random.Generator,
) -> None:
    model = linear_layers(rng)
    turned = next(node for node in model.graph if node.op_type == "Transpose").outputs[0]
    model.graph.append(ir.node("Identity", [turned], name="other"))
    assert add_adapters(model, 2) == ["second"]


def test_a_pattern_without_a_weight_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'conv\*' matches no weight of Gemm or MatMul; known: "):
        add_adapters(vit(), 4, "conv*")


def test_the_flag_is_a_rank_and_a_pattern() -> None:
    assert parse_lora("8") == (8, "*")
    assert parse_lora("4:blocks.*.weight") == (4, "blocks.*.weight")
    for text in ("", "0", "x:fc*", "-2"):
        with pytest.raises(UsageError, match="starts with a rank above 0"):
            parse_lora(text)
