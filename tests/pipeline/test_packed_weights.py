"""Products with packed weights: few rows read them as they are, many rows and training do not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.types import Array
from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable
from tests.runtimes import DRIVERS, THOROUGH

GPU = f"{THOROUGH[0]}?unit=gpu"
WIDTH, BLOCK = 96, 32


def packed(name: str, bits: int, rng: np.random.Generator) -> list[onnx.TensorProto]:
    """Weights of a square layer and their scales."""
    blocks = WIDTH // BLOCK
    weights = rng.integers(0, 256, (WIDTH, blocks, BLOCK * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.001, 0.01, WIDTH * blocks) * 4.0 ** (4 - bits)
    return [
        numpy_helper.from_array(weights, f"{name}.packed"),
        numpy_helper.from_array(scales.astype(np.float32), f"{name}.scales"),
    ]


def layers(rows: int, bits: int, rng: np.random.Generator) -> onnx.ModelProto:
    """x + (x times the first layer), a maximum, and the second one behind it."""

    def product(x: str, name: str, y: str) -> onnx.NodeProto:
        return helper.make_node(
            "MatMulNBits",
            [x, f"{name}.packed", f"{name}.scales"],
            [y],
            domain="com.microsoft",
            N=WIDTH,
            K=WIDTH,
            bits=bits,
            block_size=BLOCK,
        )

    nodes = [
        product("x", "a", "a"),
        helper.make_node("Add", ["a", "x"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r"]),
        product("r", "b", "y"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, WIDTH]) for name in "xy")
    graph = helper.make_graph(
        nodes, "layers", [x], [y], [*packed("a", bits, rng), *packed("b", bits, rng)]
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def theirs(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], feeds)[0])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("processor", [*DRIVERS, GPU, "ort:cpu", "reference"])
def test_layers_compute_what_onnxruntime_does(
    processor: str, rows: int, bits: int, rng: np.random.Generator
) -> None:
    model = layers(rows, bits, rng)
    feeds = {"x": rng.normal(size=(rows, WIDTH)).astype(np.float32)}
    found = coexec.compile(coexec.load(model), [processor]).run(feeds)["y"]
    np.testing.assert_allclose(found, theirs(model, feeds), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("processor", [*DRIVERS, GPU])
def test_few_rows_keep_weights_in_their_bits(processor: str, rng: np.random.Generator) -> None:
    few, many = (coexec.compile(coexec.load(layers(rows, 4, rng)), [processor]) for rows in (1, 40))
    floats = 2 * WIDTH * WIDTH * 4
    assert few.peak_bytes < floats / 2
    assert many.peak_bytes > floats


@pytest.mark.parametrize("processor", DRIVERS)
def test_many_rows_find_weights_that_were_unpacked_once(
    processor: str, rng: np.random.Generator
) -> None:
    session = coexec.compile(coexec.load(layers(40, 4, rng)), [processor])
    assert len(session.plan.processors) == 4  # two products, an addition and a maximum


def test_groups_of_a_gpu_finish_their_results(rng: np.random.Generator) -> None:
    """An addition and a maximum behind a product are no launches of their own."""
    session = coexec.compile(coexec.load(layers(3, 4, rng)), [GPU])
    session.run({"x": np.ones((3, WIDTH), np.float32)})
    (executable,) = session.program.executables
    assert isinstance(executable, OpenCLExecutable)
    kernels = [step for step in executable.steps if isinstance(step, KernelStep)]
    assert [step.entry for step in kernels] == ["few_bits_groups"] * 2


def test_scales_are_trained(rng: np.random.Generator) -> None:
    """The gradient goes through the weights that the body computes."""
    model = coexec.load(layers(4, 4, rng))
    feeds = {"x": rng.normal(size=(4, WIDTH)).astype(np.float32)}
    labels = np.arange(4)

    def losses(processor: str) -> list[float]:
        trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.01), [processor])
        return [float(trainer.step(feeds, labels)) for _ in range(3)]

    expected = losses("reference")
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses(THOROUGH[0]), expected, rtol=1e-4)
