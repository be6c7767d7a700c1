"""The memory problem of a training step's graph."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from coexec.core.types import OpCall
from coexec.memory.problem import StepNode, StepProblem
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, constant_of, type_of
from coexec.ops.opdef import COEXEC, OpDef
from coexec.ops.paging import OUT, PREDICTED, is_paging, moves
from coexec.ops.table import opdef

FORWARD, OPTIMIZER = "forward", "optimizer"
Measure = Callable[[OpCall], float]


def build_problem(graph: ir.Graph, own: Collection[str], cost_us: Measure) -> StepProblem:
    """The problem of a step ``graph`` in the order in which it runs.

    Constants travel with the program: they are no matter of the arena, nor are results of the
    graph. ``own`` names tensors that have memory of their own all the time. ``cost_us`` says how
    many microseconds an operator call takes. Working memory is not known yet: it is 0.
    """
    numbers: dict[ir.Value, int] = {}
    nodes = [_node(node, numbers, cost_us) for node in graph]
    sizes = [
        0 if _lives_apart(value) or str(value.name) in own else type_of(value).nbytes
        for value in numbers
    ]
    return StepProblem(tuple(nodes), tuple(str(value.name) for value in numbers), tuple(sizes))


def _lives_apart(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None or value.is_graph_output():
        return True
    return producer.domain == COEXEC and producer.op_type == OUT


def _node(node: ir.Node, numbers: dict[ir.Value, int], cost_us: Measure) -> StepNode:
    call = call_of(node)
    op = opdef(call)

    def number(value: ir.Value) -> int:
        return numbers.setdefault(value, len(numbers))

    reads = [
        None if value is None or constant_of(value) is not None else number(value)
        for value in node.inputs
    ]
    writes = [number(value) if value.name else None for value in node.outputs]
    return StepNode(
        str(node.name),
        tuple(dict.fromkeys(tensor for tensor in reads if tensor is not None)),
        tuple(tensor for tensor in writes if tensor is not None),
        _cost_us(call, op, cost_us),
        forward=node.metadata_props.get(PHASE) == FORWARD,
        repeatable=not is_paging(call),
        view=op.view and not moves(call),
        update=node.metadata_props.get(PHASE) == OPTIMIZER,
        whole=node.domain == COEXEC,
        in_place=tuple(_pairs(op, writes, reads)),
    )


def _cost_us(call: OpCall, op: OpDef, cost_us: Measure) -> float:
    """Microseconds; a wait for a page takes what was predicted when it was planned."""
    if is_paging(call):
        return float(call.attribute(PREDICTED, 0.0))
    return 0.0 if op.view else cost_us(call)


def _pairs(op: OpDef, writes: list[int | None], reads: list[int | None]) -> list[tuple[int, int]]:
    pairs = []
    for output, operand in op.in_place:
        written = writes[output] if output < len(writes) else None
        read = reads[operand] if operand < len(reads) else None
        if written is not None and read is not None:
            pairs.append((written, read))
    return pairs
