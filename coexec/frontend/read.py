"""From a file to an ``onnx_ir.Model`` that is known to be well-formed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from coexec.base.errors import CoexecError, ModelError
from coexec.frontend.rewrite import stamp_versions
from coexec.frontend.schema import check_age, check_node
from coexec.frontend.source import Source, open_source
from coexec.frontend.structure import check_opset, check_structure
from coexec.frontend.tensors import all_nodes, own_tensors

ModelSource = str | Path | bytes | onnx.ModelProto | ir.Model


def read_model(source: ModelSource) -> ir.Model:
    """Read and check a model; the result shares nothing with ``source`` but weights in memory.

    ``source`` is a path, the bytes of a file, or a model already in memory. Nodes come out in an
    order in which every value is defined before it is used, each with its opset version.

    ``ModelError`` names what is wrong: not an ONNX file, truncated, a cycle, undefined or doubly
    defined values, tensors whose data do not have the size they claim, external data that are
    missing or outside the model's folder, operators in a form older than opset 9, an opset newer
    than the installed onnx package.
    """
    model = source.clone() if isinstance(source, ir.Model) else _from_proto(open_source(source))
    with model_errors("the model is inconsistent"):
        _normalise_domains(model)
        check_opset(model.opset_imports, "the model")
        model.graph.sort()
        for graph in (model.graph, *model.functions.values()):
            stamp_versions(graph)
        nodes = list(all_nodes(model))
        check_age(nodes)
        for node in nodes:
            check_node(node)
    return model


def _from_proto(source: Source) -> ir.Model:
    with model_errors(f"{source.label}: damaged model"):
        check_structure(source.proto, source.folder)
        model = ir.serde.deserialize_model(source.proto)
        own_tensors(model, source.folder)
    return model


@contextmanager
def model_errors(context: str) -> Iterator[None]:
    """Turn whatever a damaged model makes a library raise into a ``ModelError``.

    This is the trust boundary: a file may hold anything, and no list of exceptions of protobuf,
    onnx and onnx_ir would be complete. The original stays attached as the cause.
    """
    try:
        yield
    except CoexecError:
        raise
    except MemoryError as error:
        raise ModelError(f"{context}: it needs more memory than there is") from error
    except Exception as error:
        raise ModelError(f"{context}: {root_cause(error)}") from error


def root_cause(error: BaseException) -> str:
    """The innermost message of a chain of wrapped exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or "no message"
    logging.getLogger(__name__).debug("%s", error, exc_info=error)
    return f"{type(error).__name__}: {text[:300]}"


def _normalise_domains(model: ir.Model) -> None:
    """ONNX's own domain is spelled "" in opset imports, as onnx_ir spells it in nodes."""
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        if "ai.onnx" in imports:
            imports[""] = imports.pop("ai.onnx")
