"""A small network with everything a training has to carry over, and data for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, HIDDEN, CLASSES = 12, 24, 4


def network(*, dropout: bool = False, seed: int = 3) -> onnx.ModelProto:
    """(N, 12) -> (N, 4): Gemm, BatchNormalization, Relu, Dropout (if asked for), Gemm.

    Its state is parameters, running statistics and, with dropout, the step that draws the mask.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "fc1.weight": rng.standard_normal((FEATURES, HIDDEN)) * 0.3,
        "fc1.bias": rng.standard_normal(HIDDEN) * 0.1,
        "bn.scale": np.ones(HIDDEN),
        "bn.bias": np.zeros(HIDDEN),
        "bn.mean": np.zeros(HIDDEN),
        "bn.var": np.ones(HIDDEN),
        "fc2.weight": rng.standard_normal((HIDDEN, CLASSES)) * 0.3,
        "fc2.bias": np.zeros(CLASSES),
    }
    bn = ["bn.scale", "bn.bias", "bn.mean", "bn.var"]
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["a"], name="fc1"),
        helper.make_node("BatchNormalization", ["a", *bn], ["b"], name="bn"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("Gemm", ["d", "fc2.weight", "fc2.bias"], ["y"], name="fc2"),
    ]
    middle = ["c", "ratio"] if dropout else ["c"]
    nodes.insert(
        3, helper.make_node("Dropout" if dropout else "Identity", middle, ["d"], name="drop")
    )
    initializers = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    if dropout:
        initializers.append(numpy_helper.from_array(np.array(0.25, np.float32), "ratio"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_network(path: Path, *, dropout: bool = False) -> Path:
    """The network as a file."""
    path.write_bytes(network(dropout=dropout).SerializeToString())
    return path


def arrays(samples: int, seed: int = 5) -> dict[str, Any]:
    """Inputs ``x`` and ``labels`` that a linear map of ``x`` decides, with some noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, FEATURES)).astype(np.float32)
    noise = rng.standard_normal((samples, CLASSES))
    labels = (x @ rng.standard_normal((FEATURES, CLASSES)) + noise).argmax(1)
    return {"x": x, "labels": labels.astype(np.int64)}


def write_data(path: Path, samples: int = 48, **changes: Any) -> Path:
    """Data as a file; ``changes`` replace or add arrays, ``None`` removes one."""
    content = {**arrays(samples), **changes}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return path


def parameters(path: Path) -> dict[str, bytes]:
    """Initializers of an ONNX file, bit by bit."""
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes()
        for tensor in onnx.load(path).graph.initializer
    }
