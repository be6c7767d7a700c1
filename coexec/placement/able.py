"""Which processors refuse to cut parts out of the tensors of a graph, or to join them of parts.

Shares of nodes read parts, and what reads a divided value as a whole has it joined. An NPU may run
an operator's shares and have neither Slice nor Concat: plans must not leave that work to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from coexec.core.processor import Processor
from coexec.core.types import TensorType
from coexec.ops.node import type_of
from coexec.ops.split import cut_call, join_call
from coexec.placement.problem import Division, Task, Tensor


def with_refusals(
    graph: ir.Graph,
    tasks: Sequence[Task],
    tensors: Sequence[Tensor],
    divisions: Mapping[int, Sequence[Division]],
    processors: Sequence[Processor],
) -> tuple[Tensor, ...]:
    """Tensors with the numbers of processors that refuse to cut and to join them.

    Asked is about halves, along all axes in which a division makes or reads a tensor in parts.
    """
    values = [*graph.inputs, *(value for node in graph for value in node.outputs if value.name)]
    kinds = {str(value.name): type_of(value) for value in values}
    asked: dict[tuple[TensorType, int], tuple[frozenset[int], frozenset[int]]] = {}
    found = list(tensors)
    for number, axis in dict.fromkeys(_in_parts(tasks, divisions)):
        each = found[number]
        kind = kinds[each.name]
        if kind.shape[axis] < 2:
            continue
        if (kind, axis) not in asked:
            asked[kind, axis] = _refusals(kind, axis, processors)
        uncut, unjoined = asked[kind, axis]
        found[number] = replace(each, uncut=each.uncut | uncut, unjoined=each.unjoined | unjoined)
    return tuple(found)


def _in_parts(
    tasks: Sequence[Task], divisions: Mapping[int, Sequence[Division]]
) -> Iterator[tuple[int, int]]:
    """Tensors that may be made or read in parts, by number, and along which axis."""
    for index, ways in divisions.items():
        for division in ways:
            yield from ((tensor, division.axis) for tensor in tasks[index].outputs)
            for tensor, window in zip(tasks[index].inputs, division.windows, strict=True):
                if window is not None:
                    yield tensor, window.axis


def _refusals(
    kind: TensorType, axis: int, processors: Sequence[Processor]
) -> tuple[frozenset[int], frozenset[int]]:
    """Who refuses to cut, and who to join."""
    half, count = kind.shape[axis] // 2, kind.shape[axis]
    cuts = [cut_call(kind, axis, 0, half), cut_call(kind, axis, half, count)]
    join = join_call([call.output(0) for call in cuts], axis)
    numbered = list(enumerate(processors))
    return (
        frozenset(unit for unit, each in numbered if not each.supports(cuts[0]).yes),
        frozenset(unit for unit, each in numbered if not each.supports(join).yes),
    )
