"""Masks of the backward pass are made in the forward pass, one bit for each element.

A tensor that only comparisons with numbers read in the backward pass (the operand of a Relu, of a
Clip, of a LeakyRelu) need not be kept for them: their result is, as bits. So are booleans that both
passes read (masks of dropout).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from coexec.ops.elementwise import BOOL, is_float
from coexec.ops.node import constant_of, type_of
from coexec.passes.insert import Inserter, New, replace_node
from coexec.passes.kept import (
    BACKWARD,
    Kept,
    Use,
    kept_tensors,
    phase_of,
    storage_of,
)

LEAST_BYTES = 4096
"""Of a kept tensor; masks of smaller ones are not worth two nodes."""

BOUNDS = {"Greater": "above", "Less": "below"}


def pack_masks(graph: ir.Graph, always: Collection[str] = ()) -> int:
    """Pack masks where that is all that is kept of a tensor; in place. Returns how many.

    Of tensors that ``always`` names, also where more is kept of them. Results are the same bit by
    bit. Comparisons that nothing reads any more are left behind.
    """
    inserter = Inserter(graph)
    packed = 0
    for kept in kept_tensors(graph):
        if kept.nbytes < LEAST_BYTES:
            continue
        if type_of(kept.value).dtype == BOOL:
            packed += _pack_boolean(inserter, kept)
            continue
        tests = tests_of(kept)
        if tests and (len(tests) == len(kept.uses) or kept.value.name in always):
            packed += _pack_tests(inserter, kept.value, tests)
    return packed


def tests_of(kept: Kept) -> list[Use]:
    """Uses of a tensor of floats as the left side of a comparison with a number."""
    if not is_float(type_of(kept.value).dtype):
        return []
    return [use for use in kept.uses if _bound_of(use) is not None]


def _bound_of(use: Use) -> float | None:
    node = use.node
    if node.domain or node.op_type not in BOUNDS or use.position != 0:
        return None
    bound = None if node.inputs[1] is None else constant_of(node.inputs[1])
    same = type_of(node.outputs[0]).shape == type_of(use.value).shape
    return float(bound.reshape(())) if bound is not None and bound.size == 1 and same else None


def _pack_boolean(inserter: Inserter, kept: Kept) -> int:
    """Bits of a boolean, which gradients pass by."""
    producer = kept.value.producer()
    assert producer is not None
    if any(storage_of(use.value) is not use.value for use in kept.uses):
        return 0
    (words,) = inserter.behind(producer, New("PackBits", [kept.value]))
    for use in kept.uses:
        _apply(inserter, use, words)
    return 1


def _pack_tests(inserter: Inserter, value: ir.Value, tests: list[Use]) -> int:
    """Bits of each comparison, of two that are joined by And together."""
    producer = value.producer()
    assert producer is not None
    packed = 0
    for result, bounds in _joined(tests).items():
        (words,) = inserter.behind(producer, New("PackBits", [value], bounds))
        readers = [Use(node, position) for node, position in result.uses()]
        for use in readers:
            _apply(inserter, use, words)
        packed += 1
    return packed


def _joined(tests: list[Use]) -> dict[ir.Value, dict[str, float]]:
    """Results to pack and the bounds that they stand for."""
    found: dict[ir.Value, dict[str, float]] = {}
    for use in tests:
        bound = _bound_of(use)
        assert bound is not None
        result, name = use.node.outputs[0], BOUNDS[use.node.op_type]
        readers = list(result.uses())
        both = readers[0][0] if len(readers) == 1 and readers[0][0].op_type == "And" else None
        other = None if both is None else found.get(both.outputs[0])
        if both is not None and _joins(both, tests) and (other is None or name not in other):
            found.setdefault(both.outputs[0], {})[name] = bound
        else:
            found[result] = {name: bound}
    return found


def _joins(both: ir.Node, tests: list[Use]) -> bool:
    """Whether an And reads two of these comparisons, one from above and one from below."""
    nodes = {use.node for use in tests}
    producers = [value.producer() for value in both.inputs if value is not None]
    kinds = {node.op_type for node in producers if node is not None and node in nodes}
    return len(producers) == len(kinds) == 2 and not both.domain


def _apply(inserter: Inserter, use: Use, words: ir.Value) -> None:
    """Let a reader of a mask go by its bits."""
    node = use.node
    if phase_of(node) == BACKWARD and _selects(use):
        (kept,) = inserter.before(node, New("SelectByBits", [words, node.inputs[1]]))
        replace_node(inserter.graph, node, [kept])
        return
    shape = {"shape": type_of(use.value).shape}
    (mask,) = inserter.before(node, New("UnpackBits", [words], shape))
    node.replace_input_with(use.position, mask)


def _selects(use: Use) -> bool:
    """Whether a node is ``Where(mask, x, 0)`` with a mask and an x of one shape."""
    node = use.node
    if node.op_type != "Where" or node.domain or use.position != 0:
        return False
    x, zero = node.inputs[1], node.inputs[2]
    constant = None if zero is None else constant_of(zero)
    if x is None or constant is None or constant.size != 1:
        return False
    return float(constant.reshape(())) == 0 and type_of(x).shape == type_of(use.value).shape
