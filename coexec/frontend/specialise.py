"""From a model with symbolic shapes to one whose every value has a static type."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes import common

from coexec.base.errors import CoexecError, ModelError, ShapeError
from coexec.core.types import Array, OpCall
from coexec.frontend.bind import Shape, bind_inputs
from coexec.frontend.branches import inline_branch, is_if
from coexec.frontend.clean import clean
from coexec.frontend.declared import check_outputs
from coexec.frontend.division import Cut, Division, divide, is_search
from coexec.frontend.fold import MAX_FLOP, Folder
from coexec.frontend.loops import conditional, ends_at_once, is_loop, unroll_loop, unroll_scan
from coexec.frontend.rewrite import replace_value
from coexec.frontend.schema import check_node, check_types, label
from coexec.frontend.sequences import Sequences, is_of_sequences
from coexec.frontend.tensors import MAX_TENSOR_BYTES
from coexec.frontend.trip_counts import count_steps
from coexec.frontend.unsupported import check_supported, identifier
from coexec.ops.node import call_of, constant_of, present_outputs, set_type, type_of
from coexec.ops.opdef import OpDef
from coexec.ops.table import OPERATORS, opdef

SAME_WHEN_TYPE_IS = frozenset({"Cast", "CastLike", "Expand"})
"""Besides views: operators that only copy where result and operand have the same type."""


DECIDING_FLOP = 10**6
"""What takes less, and reads whole numbers alone, is a shape rather than a network."""


class ValuesNeeded(ModelError):
    """Shapes in the model depend on the *values* of graph inputs, which are not known yet.

    ``names`` are these inputs: pass their arrays as ``values`` and specialise again.
    """

    def __init__(self, names: Sequence[str], reason: str) -> None:
        super().__init__(f"{reason}; it depends on the values of {', '.join(map(repr, names))}")
        self.names = tuple(names)


class DecidedByData(ModelError):
    """Shapes in the model depend on what the model computes: it has to be divided there."""


def specialise(
    model: ir.Model,
    shapes: Mapping[str, Shape] | None = None,
    values: Mapping[str, Array] | None = None,
    *,
    fold_parameters: bool = False,
) -> ir.Model:
    """A copy of ``model`` in which every value has a static shape and element type.

    ``shapes`` gives the graph inputs' shapes (a symbolic dimension found once holds everywhere),
    ``values`` the arrays of inputs whose values decide shapes; these stay graph inputs and carry
    the array as ``const_value``. What can be computed now is: sizes and shapes, arithmetic on
    constants, branches of ``If``. Weights (floating-point initializers that are no constants)
    keep their own nodes, because training changes them, unless ``fold_parameters``. Weight arrays
    are shared with ``model``, which stays as it is.

    ``ShapeError`` names the input or node that does not fit, ``ValuesNeeded`` the inputs whose
    values are missing, ``UnsupportedOperators`` what has no operator, ``ModelError`` an output of
    another element type than it is declared to have; of another shape, a ``ModelWarning``.
    """
    folder = Folder(fold_parameters)
    result, _ = _walked(model, shapes or {}, values or {}, folder, None)
    return result


def specialise_parts(
    model: ir.Model, shapes: Mapping[str, Shape], values: Mapping[str, Array]
) -> ir.Model | Division:
    """As :func:`specialise` for inference; a model in which data decide shapes in its parts.

    Inputs of the model that shapes hang on by few and whole numbers are asked for
    (``ValuesNeeded``), as a program for each of their values is worth while.
    """
    cut = Cut()
    result, walker = _walked(model, shapes, values, Folder(True), cut)
    if not cut.unknown:
        return result
    division = divide(result, cut)
    if division.head is not None:
        clean(division.head)
        walker.finish(division.head.graph)
    return division


def _walked(
    model: ir.Model,
    shapes: Mapping[str, Shape],
    values: Mapping[str, Array],
    folder: Folder,
    cut: Cut | None,
) -> tuple[ir.Model, _Walker]:
    """A copy whose nodes were visited in order, clean and checked unless it is cut."""
    result = model.clone()
    common.RemoveInitializersFromInputsPass()(result)
    bind_inputs(result.graph, shapes, values)
    walker = _Walker(result, folder, cut)
    for node in result.graph:  # onnx_ir visits nodes inserted behind the current one
        walker.visit(node)
    if cut is None or not cut.unknown:
        clean(result)
        walker.finish(result.graph)
        check_outputs(model.graph, result.graph)
    return result, walker


class _Walker:
    """One pass over the nodes in execution order."""

    def __init__(self, model: ir.Model, folder: Folder, cut: Cut | None) -> None:
        self.graph = model.graph
        self.folder = folder
        self.cut = cut
        self.sequences = Sequences(self._value)

    def visit(self, node: ir.Node) -> None:
        """Type, fold or splice one node; with a cut, unless what it reads is not known yet."""
        if (self.cut is not None and self.cut.hangs(node)) or not _used(node):
            return
        try:
            self._visit(node)
        except DecidedByData:
            if self.cut is None:
                raise
            self.cut.at(node)

    def _visit(self, node: ir.Node) -> None:
        if is_if(node):
            self._branch(node)
            return
        if is_loop(node):
            self._loop(node)
            return
        if is_of_sequences(node) and self.sequences.dissolve(node):
            return
        if identifier(node) not in OPERATORS:
            check_supported(self.graph, branches=True)
        check_node(node)  # again: a function's attributes are known only where it is called
        call = self._call(node)
        call = _infer(opdef(call), call, node)
        for value, kind in zip(present_outputs(node), call.outputs, strict=True):
            if value is not None and kind is not None:
                set_type(value, kind)
        self._simplify(node, opdef(call), call)

    def _branch(self, node: ir.Node) -> None:
        """Splice the branch an ``If`` takes; flags given as graph inputs count as known values."""
        condition = node.inputs[0]
        if condition is not None and self.folder.value(condition) is None:
            inputs = _ancestor_inputs(condition)
            if not inputs or any(type_of(value).dtype.kind == "f" for value in inputs):
                check_supported(self.graph, branches=True)  # which names it and all others
        self._value(node, 0)
        inline_branch(node)

    def _loop(self, node: ir.Node) -> None:
        """The steps of a loop in its place; trip counts given as graph inputs are known values."""
        check_node(node)
        if node.op_type == "Scan":
            unroll_scan(node)
            return
        condition = node.inputs[1] is None or bool(self._value(node, 1).reshape(()))
        unroll_loop(node, self._steps(node) if condition else 0)

    def _steps(self, node: ir.Node) -> int:
        """Steps of a ``Loop`` that begins: its trip count, or fewer if its condition says so."""
        counted = node.inputs[0] is not None
        most = max(int(self._value(node, 0).reshape(())), 0) if counted else sys.maxsize
        if ends_at_once(node):
            return min(most, 1)
        steps = count_steps(node, most, self.folder.value) if conditional(node) else most
        if steps is None or not (counted or conditional(node)):
            check_supported(self.graph, branches=True)  # which names it and all others
            raise ModelError(f"{label(node)}: it has no end")
        return steps

    def finish(self, graph: ir.Graph) -> None:
        """Types of the copies that cleaning put in front of graph outputs."""
        for node in graph:
            if node.op_type == "Identity" and node.inputs[0] is not None:
                set_type(node.outputs[0], type_of(node.inputs[0]))

    def _call(self, node: ir.Node) -> OpCall:
        """The call, with the values its shape rule asks for."""
        try:
            call = call_of(node)
        except ValueError as error:
            raise ModelError(f"{label(node)}: {error}") from error
        constants = dict(call.constants)
        for index in opdef(call).value_inputs:
            if call.has_input(index) and index not in constants:
                constants[index] = self._value(node, index)
        return replace(call, constants=constants)

    def _value(self, node: ir.Node, index: int) -> Array:
        """Value of an operand that decides shapes; from then on it is an initializer."""
        operand = node.inputs[index]
        assert operand is not None
        array = self.folder.value(operand)
        if array is None:
            raise _missing_value(node, index, operand, self.cut is not None)
        producer = operand.producer()
        if producer is not None:
            self.folder.replace(producer, {operand: array})
        return array

    def _simplify(self, node: ir.Node, op: OpDef, call: OpCall) -> None:
        results = self.folder.results(node, op, call)
        if results is not None:
            self.folder.replace(node, results)
        elif _only_copies(op, call) and node.inputs[0] is not None:
            source, result = node.inputs[0], node.outputs[0]
            movable = source.producer() is not None and not source.is_graph_output()
            if movable or not result.is_graph_output():
                replace_value(result, source, node)
                self.graph.remove(node, safe=True)


def _used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs)


def _infer(op: OpDef, call: OpCall, node: ir.Node) -> OpCall:
    """Output types; whatever a rule raises on a malformed call becomes a ``ShapeError``."""
    try:
        check_types(call)
        typed = op.typed(call)
        for kind in typed.outputs:
            if kind is not None and (min(kind.shape, default=0) < 0 or kind.nbytes < 0):
                raise ValueError(f"the result would have a negative dimension: {kind}")
            if kind is not None and kind.nbytes > MAX_TENSOR_BYTES:
                raise ValueError(f"the result would have more than 1 TiB: {kind}")
        if len(typed.outputs) < call.output_count:
            raise ValueError(f"it has no output {len(typed.outputs)}")
        return typed
    except CoexecError:
        raise
    except ValueError as error:
        raise ShapeError(f"{_applied(node, call)}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"
        raise ShapeError(f"{_applied(node, call)}: malformed call ({text})") from error


def _applied(node: ir.Node, call: OpCall) -> str:
    """A node with its operands' types, for a message."""
    operands = ", ".join(
        "-" if kind is None else f"{'' if value is None else value.name}: {kind}"
        for value, kind in zip(node.inputs, call.inputs, strict=False)
    )
    return f"{label(node)} on ({operands})"


def _only_copies(op: OpDef, call: OpCall) -> bool:
    copies = op.view or call.identifier in SAME_WHEN_TYPE_IS
    return copies and len(call.outputs) == 1 and call.outputs[0] == call.input(0)


def _missing_value(node: ir.Node, index: int, operand: ir.Value, divisible: bool) -> ModelError:
    where = f"{label(node)}: the value of input {index} ({operand.name!r}) must be known"
    inputs = _ancestor_inputs(operand)
    names = sorted(value.name or "" for value in inputs)
    if not names:
        return ModelError(f"{where}, but it is random or too large to compute ahead")
    nodes = _ancestors(operand)
    if _worth_dividing(node, operand, inputs, nodes, divisible):
        return DecidedByData(
            f"{where}, and {len(nodes)} nodes compute it from {', '.join(map(repr, names))}: "
            "code is made for fixed shapes. Cut the model in front of it "
            "(onnx.utils.extract_model) and run what is behind it as a model of its own"
        )
    return ValuesNeeded(names, where)


def _worth_dividing(
    node: ir.Node,
    operand: ir.Value,
    inputs: Sequence[ir.Value],
    nodes: Sequence[ir.Node],
    divisible: bool,
) -> bool:
    """Whether a program for each value of ``inputs`` would be used once and never again."""
    if divisible and operand.producer() is None and not is_search(node):
        return False
    if divisible and any(type_of(value).dtype.kind == "f" for value in inputs):
        return True
    flop = sum(opdef(call).work(call).flop for call in map(call_of, nodes))
    return flop > (DECIDING_FLOP if divisible else MAX_FLOP)


def _ancestors(value: ir.Value) -> list[ir.Node]:
    """Nodes that ``value`` is computed by."""
    found: dict[ir.Node, None] = {}
    stack = [value.producer()]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found[node] = None
            stack += [operand.producer() for operand in node.inputs if operand is not None]
    return list(found)


def _ancestor_inputs(value: ir.Value) -> list[ir.Value]:
    """Graph inputs that ``value`` is computed from; those of known value left out."""
    found, seen, stack = [], {value}, [value]
    while stack:
        current = stack.pop()
        producer = current.producer()
        if producer is None:
            if current.is_graph_input() and constant_of(current) is None:
                found.append(current)
            continue
        for operand in producer.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return found
