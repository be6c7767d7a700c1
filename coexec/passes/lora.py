"""Low-rank adapters: a weight W stays as it is, and A B of a low rank is trained beside it.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022 (arXiv 2106.09685):
y = x W + s (x A) B, where A (in, rank) starts at random and B (rank, out) at zero, so that a model
with fresh adapters computes what it did. After training, W + s A B takes their place.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.core.types import Array, TensorType
from coexec.ops.node import constant_of, is_parameter, set_type, type_of

ADAPTERS = "*#lora_[ab]"
"""The pattern that names of adapters match: what is trained."""

WEIGHT, SCALE = "coexec.adapts", "coexec.adapter_scale"
"""Metadata of the node that adds an adapter's result: the weight's name, and s."""


@dataclass(frozen=True)
class _Pair:
    """The operands A and B of a weight, shared by all nodes that read it."""

    a: ir.Value
    b: ir.Value


def parse_lora(text: str) -> tuple[int, str]:
    """``RANK[:PATTERN]`` as a rank and a pattern of names of weights.

    Raises:
        UsageError: the rank is no number above 0.
    """
    rank, _, pattern = text.partition(":")
    if not rank.isdecimal() or not int(rank):
        raise UsageError(f"--lora {text!r}: RANK[:PATTERN] starts with a rank above 0, such as 8")
    return int(rank), pattern or "*"


def add_adapters(
    model: ir.Model, rank: int, pattern: str = "*", *, scale: float = 1.0, seed: int = 0
) -> list[str]:
    """Put adapters beside the weights of Gemm and MatMul that match a shell pattern; in place.

    ``scale`` is s (the paper's alpha / rank); A is normal with deviation 1 / sqrt(in). A weight may
    be transposed before its product, as PyTorch's exporters write linear layers in training form.
    Weights that other operators read too are left out: no W would do for both. Returns the adapted
    weights.

    Raises:
        UsageError: no weight matches (the known ones are listed).
    """
    graph = model.graph
    weights = _weights(graph)
    chosen = [name for name in weights if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        known = known_names(pattern, weights) if weights else "known: none"
        raise UsageError(f"--lora: {pattern!r} matches no weight of Gemm or MatMul; {known}")
    rng = np.random.default_rng(seed)
    for name in chosen:
        found = weights[name]
        pair = _new_pair(graph, graph.initializers[name], found[0].transposed, rank, rng)
        for product in found:
            _adapt(product.node, name, pair, scale)
    return chosen


def merge_adapters(model: ir.Model) -> int:
    """Replace each W and its adapter by W + s A B; in place. Returns how many there were."""
    graph = model.graph
    merged: set[str] = set()
    for join in [node for node in graph if WEIGHT in node.metadata_props]:
        name = join.metadata_props[WEIGHT]
        if name not in merged:
            _merge(graph, join)
            merged.add(name)
        _take_out(graph, join)
    for name in merged:
        for suffix in ("a", "b"):
            del graph.initializers[f"{name}#lora_{suffix}"]
    return len(merged)


@dataclass(frozen=True)
class _Product:
    """A Gemm or MatMul of a weight, which is (out, in) if it is ``transposed``, else (in, out)."""

    node: ir.Node
    transposed: bool


def _weights(graph: ir.Graph) -> dict[str, list[_Product]]:
    """Matrices that nothing but Gemm and MatMul read, always the same way round, and by which."""
    found: dict[str, list[_Product]] = {}
    for value in graph.initializers.values():
        if not is_parameter(value) or type_of(value).rank != 2:
            continue
        products = _products(value)
        if products and len({each.transposed for each in products}) == 1:
            found[str(value.name)] = products
    return found


def _products(matrix: ir.Value) -> list[_Product] | None:
    """All that read a matrix, transposed or not; none if something else does, too."""
    if matrix.is_graph_output():
        return None
    found: list[_Product] = []
    for node, position in matrix.uses():
        if _is_product(node, position):
            found.append(_Product(node, _is_set(node, "transB")))
        elif node.op_type == "Transpose" and not node.domain:
            turned = _products(node.outputs[0])
            if turned is None:
                return None
            swaps = _swaps(node)
            found += [_Product(each.node, each.transposed != swaps) for each in turned]
        else:
            return None
    return found


def _is_product(node: ir.Node, position: int) -> bool:
    known = node.op_type in ("Gemm", "MatMul") and not node.domain
    return known and position == 1 and not _is_set(node, "transA")


def _swaps(transpose: ir.Node) -> bool:
    """Whether a Transpose of a matrix swaps its axes."""
    order = transpose.attributes.get("perm")
    return order is None or list(order.as_ints()) == [1, 0]


def _is_set(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())


def _new_pair(
    graph: ir.Graph, weight: ir.Value, transposed: bool, rank: int, rng: np.random.Generator
) -> _Pair:
    kind = type_of(weight)
    inner, outer = kind.shape[::-1] if transposed else kind.shape
    start = rng.standard_normal((inner, rank)) / np.sqrt(inner)
    a = _initializer(graph, f"{weight.name}#lora_a", start.astype(kind.dtype))
    b = _initializer(graph, f"{weight.name}#lora_b", np.zeros((rank, outer), kind.dtype))
    return _Pair(a, b)


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    set_type(value, TensorType.of(array))
    graph.register_initializer(value)
    return value


def _adapt(node: ir.Node, weight: str, pair: _Pair, scale: float) -> None:
    """y = the node's own result + s (x A) B, under the name of the node's result."""
    old, x = node.outputs[0], node.inputs[0]
    assert x is not None
    down = _node("MatMul", [x, pair.a], f"{node.name}/lora_a")
    if node.op_type == "Gemm":
        attribute = node.attributes.get("alpha")
        factor = scale * (1.0 if attribute is None else attribute.as_float())
        join = _node(
            "Gemm", [down.outputs[0], pair.b, old], f"{node.name}/lora_b", {"alpha": factor}
        )
        nodes = [down, join]
    else:
        up = _node("MatMul", [down.outputs[0], pair.b], f"{node.name}/lora_b")
        array = np.array(scale, type_of(pair.b).dtype)
        factor_node = _node("Constant", [], f"{node.name}/lora_scale", {"value": ir.tensor(array)})
        scaled = _node("Mul", [up.outputs[0], factor_node.outputs[0]], f"{node.name}/lora_scaled")
        join = _node("Add", [old, scaled.outputs[0]], f"{node.name}/lora_join")
        nodes = [down, up, factor_node, scaled, join]
    join.metadata_props[WEIGHT] = weight
    join.metadata_props[SCALE] = repr(scale)
    new = join.outputs[0]
    new.shape, new.type = old.shape, old.type
    for reader, position in list(old.uses()):
        if reader is not join:
            reader.replace_input_with(position, new)
    graph = node.graph
    assert graph is not None
    for position, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[position] = new
    old.name, new.name = f"{old.name}#frozen", old.name
    graph.insert_after(node, nodes)


def _node(
    op_type: str,
    inputs: list[ir.Value],
    name: str,
    attributes: dict[str, float | ir.TensorProtocol] | None = None,
) -> ir.Node:
    node = ir.node(op_type, inputs, attributes or {}, name=name)
    node.outputs[0].name = name
    return node


def _merge(graph: ir.Graph, join: ir.Node) -> None:
    """W + s A B, in float64 and rounded once."""
    name = join.metadata_props[WEIGHT]
    scale = float(join.metadata_props[SCALE])
    weight = graph.initializers[name]
    arrays = [constant_of(graph.initializers[f"{name}#lora_{each}"]) for each in ("a", "b")]
    own = constant_of(weight)
    a, b = (np.asarray(array, np.float64) for array in arrays)
    assert own is not None
    change = scale * (a @ b)
    products = _products(weight)
    assert products
    if products[0].transposed:
        change = change.T
    merged = (own.astype(np.float64) + change).astype(own.dtype)
    weight.const_value = ir.tensor(merged, name=name)


def _take_out(graph: ir.Graph, join: ir.Node) -> None:
    """Give the join's place back to the node in front of it, and remove what only it needed."""
    own = join.inputs[2] if join.op_type == "Gemm" else join.inputs[0]
    assert own is not None
    new = join.outputs[0]
    name = new.name
    new.replace_all_uses_with(own, replace_graph_outputs=True)
    new.name, own.name = None, name
    doomed = [join]
    while doomed:
        node = doomed.pop()
        made = [v.producer() for v in node.inputs if v is not None and v is not own]
        graph.remove(node, safe=True)
        doomed += [
            p
            for p in dict.fromkeys(made)
            if p is not None and "/lora_" in str(p.name) and not any(v.uses() for v in p.outputs)
        ]
