"""What a training leaves behind: the model with other weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.core.types import Array
from coexec.passes.inference_mode import inference_mode
from coexec.passes.lora import merge_adapters


def trained_copy(model: ir.Model, state: Mapping[str, Array]) -> ir.Model:
    """A copy of ``model`` with ``state`` by name, in inference form, adapters merged."""
    copy = model.clone()
    for name, value in copy.graph.initializers.items():
        if name in state:
            value.const_value = ir.tensor(state[name], name=name)
    merge_adapters(copy)
    inference_mode(copy)
    return copy
