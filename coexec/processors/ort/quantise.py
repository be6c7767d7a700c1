"""8-bit models by ONNX Runtime's quantiser: static or dynamic.

Static models are in QDQ form, with ranges measured on calibration data. Activations are unsigned
with a zero point, weights signed and symmetric, one scale for each output channel of a convolution
and one for a matrix: what CPUs and NPUs both compute in 8 bits (Jacob and others, "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", 2018; Krishnamoorthi,
"Quantizing deep convolutional networks", 2018). In dynamic models, linear layers with known weights
find the range of what they read in each run; all else stays in floats.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

from coexec.base.errors import ModelError
from coexec.core.types import Array
from coexec.processors.ort.failures import failure

MATRIX_PRODUCTS = ("Gemm", "MatMul")


def quantise(model: bytes, batches: Sequence[Mapping[str, Array]]) -> bytes:
    """An ONNX file's bytes as those of its 8-bit form; ``batches`` are typical inputs by name.

    Batch normalisations are folded first. Results are quantised wherever the quantiser knows the
    operator; the inputs and outputs of the model stay floats.

    Raises:
        ModelError: ONNX Runtime cannot run or quantise the model; the message is its own.
    """

    def write(prepared: Path, written: Path) -> None:
        quantize_static(
            prepared,
            written,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": _one_scale(onnx.load(prepared))},
        )

    return _written(model, write)


def quantise_dynamically(model: bytes) -> bytes:
    """An ONNX file's bytes with linear layers that find the range of what they read in each run.

    Their weights are signed bytes with a scale for each column. Convolutions stay in floats: ONNX
    Runtime computes them more slowly on bytes so, and not at all with signed weights.

    Raises:
        ModelError: ONNX Runtime cannot run or quantise the model; the message is its own.
    """

    def write(prepared: Path, written: Path) -> None:
        kinds = list(MATRIX_PRODUCTS)
        quantize_dynamic(prepared, written, kinds, per_channel=True, weight_type=QuantType.QInt8)

    return _written(model, write)


def _written(model: bytes, write: Callable[[Path, Path], None]) -> bytes:
    """What a quantiser writes of a model whose constants and batch normalisations are folded."""
    with tempfile.TemporaryDirectory(prefix="coexec-quantise-") as folder:
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(onnx.load_from_string(model), prepared, skip_symbolic_shape=True)
            write(prepared, written)
            return written.read_bytes()
        except Exception as error:  # pybind classes without a common base but Exception
            raise ModelError(f"ONNX Runtime cannot quantise the model: {failure(error)}") from error


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # a class without type information
    """Calibration data as the quantiser reads it: one batch a call, then ``None``."""

    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._batches: Iterator[Mapping[str, Array]] = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by input name."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _one_scale(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Weights of matrix products, which get one scale each instead of one a channel."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        node.input[1]: [{"symmetric": True}]
        for node in model.graph.node
        if node.op_type in MATRIX_PRODUCTS and node.input[1] in constants
    }
