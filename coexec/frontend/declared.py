"""What a file declares about the graph's outputs, held against what the graph computes."""

from __future__ import annotations

import warnings

import onnx_ir as ir

from coexec.base.errors import ModelError, ModelWarning
from coexec.core.types import TensorType
from coexec.ops.node import type_of


def check_outputs(declared: ir.Graph, computed: ir.Graph) -> None:
    """Hold the outputs that a graph declares against those of its static form, in their order.

    A ``ModelWarning`` names an output of another rank or fixed dimension: such declarations are
    common (a batch changed by hand) and nothing hangs on them. Symbolic dimensions fit any size,
    and an output of which nothing is declared fits any type.

    Raises:
        ModelError: an output has another element type. Whoever reads the result by its
            declaration would take its bytes for other numbers.
    """
    for output, result in zip(declared.outputs, computed.outputs, strict=True):
        kind = type_of(result)
        element = output.type.dtype if isinstance(output.type, ir.TensorType) else None
        if element not in (None, ir.DataType.UNDEFINED) and element.numpy() != kind.dtype:
            raise ModelError(
                f"output {output.name!r} is declared to be {element.numpy().name}, but the model "
                f"computes {kind}: correct the declaration, or cast the result"
            )
        if output.shape is not None and not _fits(output.shape, kind):
            text = "x".join(map(str, output.shape)) or "scalar"
            warnings.warn(
                f"output {output.name!r} is declared to be {text}, but the model computes {kind}",
                ModelWarning,
                2,
            )


def _fits(declared: ir.Shape, kind: TensorType) -> bool:
    return len(declared) == len(kind.shape) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(declared, kind.shape, strict=True)
    )
