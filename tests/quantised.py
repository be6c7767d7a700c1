"""Models as ONNX Runtime's quantiser writes them, and what it makes of them itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader

from coexec.core.types import Array
from tests.graphs import parse


class Batches(CalibrationDataReader):  # type: ignore[misc]  # a class without type information
    """Calibration data of the input ``x``."""

    def __init__(self, batches: list[Array]) -> None:
        self._batches: Iterator[Array] = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}


def save_in_floats(text: str, rng: np.random.Generator, path: Path) -> None:
    """Write a network, with random weights in place of all inputs but the first."""
    model = parse(text, opset=17)
    for info in list(model.graph.input)[1:]:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        weights = rng.normal(size=shape).astype(np.float32) / 3
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, info.name))
        model.graph.input.remove(info)
    onnx.save(model, path)


def of_onnx_runtime(model: Path, x: Array) -> Array:
    """Its 8-bit sums do not saturate, as coexec's do not."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])
