"""A model for inputs of some shapes, folded as far as that goes for any processor."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.core.types import Array
from coexec.frontend.specialise import ValuesNeeded, specialise
from coexec.passes.float16 import as_asked
from coexec.passes.fold_for_inference import fold_for_inference


def static_model(model: ir.Model, feeds: Mapping[str, Array]) -> ir.Model:
    """A copy with the shapes of ``feeds`` in which all is folded that can be, for any processor.

    It computes in float16 what can, if :func:`coexec.passes.float16.in_precision` asks for that.
    """
    static = _specialised(model, feeds)
    fold_for_inference(static)
    as_asked(static)
    return static


def _specialised(model: ir.Model, feeds: Mapping[str, Array]) -> ir.Model:
    shapes = {name: array.shape for name, array in feeds.items()}
    values: dict[str, Array] = {}
    while True:
        try:
            return specialise(model, shapes, values, fold_parameters=True)
        except ValuesNeeded as needed:
            new = {name: feeds[name] for name in needed.names if name not in values}
            if not new:
                raise
            values |= new
