"""coexec as a backend of ONNX's own test-suite and of anything else that speaks that interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from coexec.api import LAST_RESORT, load
from coexec.api import compile as compile_model
from coexec.base.errors import CoexecError
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.session import Session


class CoexecRep(BackendRep):
    """A compiled model; inputs and outputs by position."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """Outputs in the model's order."""
        names = [str(value.name) for value in model_inputs(self.session.model)]
        arrays: Sequence[Any] = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        feeds = {name: _array(a) for name, a in zip(names, arrays, strict=True)}
        return tuple(self.session.run(feeds).values())


class CoexecBackend(Backend):
    """ONNX backend interface; ``device`` is a processor spec (``CPU`` means the reference)."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator of the model is known."""
        try:
            load(model)
        except CoexecError:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> CoexecRep:
        """Compile ``model`` for ``device``."""
        return CoexecRep(compile_model(load(model), [cls._spec(device)]))

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Run one node on ``inputs``, which become the inputs of a model of this node alone."""
        arrays = [_array(a) for a in inputs]
        names = [name for name in node.input if name]
        graph = onnx.helper.make_graph(
            [node],
            node.op_type,
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
                )
                for name, a in zip(names, arrays, strict=True)
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        return cls.prepare(onnx.helper.make_model(graph), device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Any device may be tried; opening it says why it is not there."""
        return bool(cls._spec(device))

    @classmethod
    def _spec(cls, device: str) -> str:
        return LAST_RESORT if device == "CPU" else device


def _array(value: Any) -> Array:
    """Data as an array; element types that NumPy lacks come as ``TensorProto``."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)
