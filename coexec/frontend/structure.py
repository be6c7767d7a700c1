"""Structure of a model's protobuf: names, order, versions, shapes, tensors; pure Python.

ONNX's own checker is C++ that trusts more of its input than a file from anywhere deserves and
reports one cryptic line; these checks run first and say which node or value is at fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import defs

from coexec.base.errors import ModelError
from coexec.frontend.tensors import check_tensor, checked_size

ONNX_DOMAINS = ("", "ai.onnx")
MAX_SUBGRAPH_DEPTH = 30


def check_structure(proto: onnx.ModelProto, folder: Path | None) -> None:
    """``ModelError`` naming the culprit unless graph and functions are well-formed."""
    check_opset(opset_versions(proto.opset_import), "the model")
    if not proto.graph.node:
        raise ModelError("empty graph: the model has no nodes")
    if not proto.graph.output:
        raise ModelError("the graph has no outputs")
    scope = Scope(folder, frozenset(e.domain for e in proto.opset_import))
    scope.check_graph(proto.graph, frozenset(), 0)
    for function in proto.functions:
        _check_function(function, folder)


def opset_versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain -> version with "ai.onnx" written as ""; a domain imported twice is refused."""
    versions: dict[str, int] = {}
    for entry in imports:
        _readable([entry.domain], "an opset's domain")
        domain = "" if entry.domain in ONNX_DOMAINS else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"opset domain {domain or 'ai.onnx'!r} is imported in two versions: "
                f"{versions[domain]} and {entry.version}"
            )
    return versions


def check_opset(versions: Mapping[str, int], where: str) -> None:
    """``ModelError`` if the ONNX opset is newer than the installed onnx knows, or nonsense."""
    version = versions.get("")
    newest = defs.onnx_opset_version()
    if version is not None and version < 1:
        raise ModelError(f"{where} is in opset {version}, which does not exist")
    if version is not None and version > newest:
        raise ModelError(
            f"{where} is in opset {version}; the installed onnx package knows up to {newest}: "
            "upgrade it"
        )


def _check_function(function: onnx.FunctionProto, folder: Path | None) -> None:
    where = f"function {function.domain}::{function.name}"
    check_opset(opset_versions(function.opset_import), where)
    _unique(function.input, f"input of {where}")
    scope = Scope(folder, frozenset(e.domain for e in function.opset_import))
    defined = frozenset(function.input) | scope.check_nodes(
        function.node, frozenset(function.input), 0
    )
    _all_defined(function.output, defined, f"output of {where}")


class Scope:
    """Checks of one graph or function body and of the subgraphs in it."""

    def __init__(self, folder: Path | None, domains: frozenset[str]) -> None:
        self.folder = folder
        self.domains = domains | ({"", "ai.onnx"} if domains & set(ONNX_DOMAINS) else set())

    def check_graph(self, graph: onnx.GraphProto, outer: frozenset[str], depth: int) -> None:
        """Check a graph that sees the names ``outer`` of the graphs around it."""
        if depth > MAX_SUBGRAPH_DEPTH:
            raise ModelError(f"subgraphs are nested deeper than {MAX_SUBGRAPH_DEPTH}")
        inputs = [info.name for info in graph.input]
        initializers = [tensor.name for tensor in graph.initializer]
        _unique(inputs, "graph input")
        _unique(initializers, "initializer")
        if graph.sparse_initializer:
            raise ModelError("sparse initializers are not supported")
        for tensor in graph.initializer:
            check_tensor(tensor, f"initializer {tensor.name!r}", self.folder)
        for info in (*graph.input, *graph.output, *graph.value_info):
            _check_value_info(info)
        given = frozenset(inputs) | frozenset(initializers)
        defined = outer | given | self.check_nodes(graph.node, given, depth, outer)
        _all_defined([info.name for info in graph.output], defined, "graph output")

    def check_nodes(
        self,
        nodes: Iterable[onnx.NodeProto],
        given: frozenset[str],
        depth: int,
        outer: frozenset[str] = frozenset(),
    ) -> frozenset[str]:
        """Check nodes that read ``given``, ``outer`` and one another; the names they define."""
        nodes = list(nodes)
        producers = _producers(nodes, given)
        defined = outer | given | frozenset(producers)
        reads: dict[int, set[int]] = {}
        for index, node in enumerate(nodes):
            self._check_node(node, defined, depth)
            used = {name for name in _reads(node) if name in producers}
            reads[index] = {producers[name] for name in used}
        _acyclic(nodes, reads)
        return frozenset(producers)

    def _check_node(self, node: onnx.NodeProto, defined: frozenset[str], depth: int) -> None:
        _readable((node.name, node.op_type, node.domain), "a node's name or operator")
        if not node.op_type:
            raise ModelError(f"node {node.name!r} has no operator type")
        if node.domain not in self.domains:
            raise ModelError(
                f"{describe(node)} uses the domain {node.domain or 'ai.onnx'!r}, "
                "for which the model imports no opset"
            )
        _all_defined([n for n in node.input if n], defined, f"input of {describe(node)}")
        _unique([a.name for a in node.attribute], f"attribute of {describe(node)}")
        for attribute in node.attribute:
            self._check_attribute(attribute, node, defined, depth)

    def _check_attribute(
        self,
        attribute: onnx.AttributeProto,
        node: onnx.NodeProto,
        defined: frozenset[str],
        depth: int,
    ) -> None:
        where = f"attribute {attribute.name!r} of {describe(node)}"
        if attribute.ref_attr_name:
            return
        _known_kind(attribute, where)
        for tensor in _tensors(attribute):
            check_tensor(tensor, where, self.folder)
        for graph in _graphs(attribute):
            self.check_graph(graph, defined, depth + 1)


def describe(node: onnx.NodeProto) -> str:
    """A node for a message: its name, or the value it makes where it has no name."""
    label = node.name or next(iter(node.output), "")
    return f"node {label!r} ({node.op_type})"


def _known_kind(attribute: onnx.AttributeProto, where: str) -> None:
    """The attribute says what it holds, and holds it."""
    field = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g"}.get(attribute.type)
    lists = (6, 7, 8, 9, 10, 13, 14)  # 13 and 14 are types; sparse tensors (11, 12) are not read
    if field is None and attribute.type not in lists:
        raise ModelError(f"{where} has the unsupported kind {attribute.type}")
    if field in ("t", "g") and not attribute.HasField(field):
        raise ModelError(f"{where} is empty")


def _tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.type == onnx.AttributeProto.TENSOR:
        yield attribute.t
    elif attribute.type == onnx.AttributeProto.TENSORS:
        yield from attribute.tensors


def _graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        yield attribute.g
    elif attribute.type == onnx.AttributeProto.GRAPHS:
        yield from attribute.graphs


def _producers(nodes: list[onnx.NodeProto], given: frozenset[str]) -> dict[str, int]:
    producers: dict[str, int] = {}
    _readable([name for node in nodes for name in (*node.input, *node.output)], "a value's name")
    for index, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in given or name in producers:
                raise ModelError(f"{describe(node)} defines {name!r}, which is already defined")
            producers[name] = index
    return producers


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, those that its subgraphs take from around them included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (info.name for info in graph.output)


def _acyclic(nodes: list[onnx.NodeProto], reads: Mapping[int, set[int]]) -> None:
    """Nodes may come in any order, but not in a circle."""
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as error:
        circle = " -> ".join(describe(nodes[index]) for index in reversed(error.args[1]))
        raise ModelError(f"the graph has a cycle: {circle}") from error


def _readable(texts: Iterable[str], what: str) -> None:
    """Protobuf hands out bytes where a text is not UTF-8."""
    for text in texts:
        if not isinstance(text, str):
            raise ModelError(f"{what} is not readable text: {text!r}")


def _unique(names: Iterable[str], what: str) -> None:
    names = list(names)
    _readable(names, f"a name of {what}")
    counts = Counter(names)
    if "" in counts:
        raise ModelError(f"{what} without a name")
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ModelError(f"{what} defined twice: {', '.join(map(repr, twice))}")


def _all_defined(names: Iterable[str], defined: frozenset[str], what: str) -> None:
    missing = sorted({name for name in names if name not in defined})
    if missing:
        raise ModelError(f"{what} is not defined anywhere: {', '.join(map(repr, missing))}")


def _check_value_info(info: onnx.ValueInfoProto) -> None:
    where = f"value {info.name!r}"
    kind = info.type.sequence_type.elem_type if info.type.HasField("sequence_type") else info.type
    if kind.HasField("map_type"):
        raise ModelError(
            f"{where} is a map; coexec computes on tensors. Models of scikit-learn are converted "
            "without by skl2onnx's options={'zipmap': False}"
        )
    if not info.type.HasField("tensor_type"):
        return
    tensor = info.type.tensor_type
    if tensor.elem_type not in set(ir.DataType):
        raise ModelError(f"{where} has the unknown element type {tensor.elem_type}")
    fixed = [d.dim_value for d in tensor.shape.dim if d.HasField("dim_value")]
    checked_size(fixed, 1, where)
