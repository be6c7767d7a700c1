"""The stages of the front end, one call a line."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.base.collection import collection_paused
from coexec.frontend.bind import Shape, declare_shapes, is_bound
from coexec.frontend.branches import inline_known_branches
from coexec.frontend.clean import clean
from coexec.frontend.functions import expand_definitions, inline_functions
from coexec.frontend.modernise import modernise
from coexec.frontend.parameters import tell_by_exporter
from coexec.frontend.read import ModelSource, model_errors, read_model
from coexec.frontend.specialise import DecidedByData, ValuesNeeded, specialise
from coexec.frontend.standardise import standardise
from coexec.frontend.unsupported import check_supported


@collection_paused()
def load(source: ModelSource, shapes: Mapping[str, Shape] | None = None) -> ir.Model:
    """Read a model and bring it into the form the rest of coexec works on.

    ``source`` is a path, the bytes of a file, or a model in memory; ``shapes`` maps graph inputs
    to shapes. Every operator of the result is in modern (opset 21+) form and in coexec's table.
    Its types are static if the shapes of all inputs are declared or given and no shape hangs on
    the values of data; otherwise what is open stays open, to be bound by ``specialise`` later.

    ``ModelError`` says what is wrong with the file, ``UnsupportedOperators`` lists what coexec
    lacks, ``ShapeError`` names inputs or nodes whose shapes do not fit.
    """
    model = read_model(source)
    with model_errors("the model is inconsistent"):
        inline_functions(model)
        inline_known_branches(model)
        standardise(model)
        modernise(model)
        expand_definitions(model)
        clean(model)
        check_supported(model.graph)
        tell_by_exporter(model.graph)
        return _specialised(model, shapes or {})


def _specialised(model: ir.Model, shapes: Mapping[str, Shape]) -> ir.Model:
    bound = is_bound(model.graph, shapes)
    declare_shapes(model.graph, shapes)
    try:
        return specialise(model) if bound else model
    except (DecidedByData, ValuesNeeded):
        return model
