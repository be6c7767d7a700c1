"""What tests of the zoo's published networks ask: their size, arithmetic, and that they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from coexec.core.types import Array
from coexec.cost.calibration.zoo_networks import Options, zoo_layers
from coexec.cost.soc.workload import CONV, DENSE, DEPTHWISE, GROUPED
from coexec.zoo import CATALOG, build

PRODUCTS = {CONV, GROUPED, DEPTHWISE, DENSE}


def parameters(name: str, options: Options = ()) -> int:
    """Learned values of a network, counted without making them."""
    graph = CATALOG[name].builder(1, **dict(options)).graph
    return sum(
        value.const_value.size
        for key, value in graph.initializers.items()
        if value.const_value is not None and ".running_" not in key
    )


def multiply_adds(name: str, options: Options = ()) -> float:
    """Those of a network's products, for one image."""
    layers = zoo_layers(name, options)
    return sum(layer.flop for layer in layers if layer.family in PRODUCTS) / 2


def assert_runs_image_by_image(
    name: str, options: Mapping[str, Any], rng: np.random.Generator
) -> None:
    """ONNX Runtime runs it, and what it says of an image does not depend on the others."""
    more = dict(options)
    model = build(name, None, more.pop("classes", None), **more)
    source, result = model.graph.inputs[0], model.graph.outputs[0]
    shape = (2, *(side for side in (source.shape or ()) if isinstance(side, int)))
    words = source.dtype == ir.DataType.INT64
    x: Array = rng.integers(0, 100, shape) if words else rng.standard_normal(shape, np.float32)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y = np.asarray(session.run(["y"], {"x": x})[0])
    assert y.shape == (2, *(result.shape or ())[1:])
    assert np.isfinite(y).all()
    again = np.asarray(session.run(["y"], {"x": x[1:]})[0])
    np.testing.assert_allclose(again, y[1:], rtol=1e-3, atol=1e-3 * max(1.0, np.abs(y).max()))
