"""A model for inputs of some shapes, folded as far as that goes for any processor."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.core.types import Array
from coexec.frontend.specialise import ValuesNeeded, specialise
from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.passes.fold_scale import fold_scale


def static_model(model: ir.Model, feeds: Mapping[str, Array]) -> ir.Model:
    """A copy with the shapes of ``feeds`` in which all is folded that can be, for any processor."""
    static = _specialised(model, feeds)
    fold_batch_norm(static)
    fold_scale(static)
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
