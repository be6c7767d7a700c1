"""Recompute activations in the backward pass instead of keeping them from the forward pass.

Each node that makes such an activation is repeated right before the first reader that comes after
the forward pass. What it reads is kept, or repeated too. Source: Chen, Xu, Zhang, Guestrin,
"Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174).

Of an activation marked ``ALONE``, what leads to it is repeated for it only, let go, and repeated
once more where others need it: a checkpoint between segments that are recomputed one by one, from
one that is kept before them (Griewank and Walther, "Algorithm 799: Revolve", 2000).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.plan import split_alone
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import set_type, type_of
from coexec.ops.opdef import COEXEC

FORWARD, RECOMPUTE = "forward", "recompute"
SUFFIX = "#again"
"""Behind the names of nodes and values that repeat others."""


def rematerialise(graph: ir.Graph, recomputed: Collection[str]) -> None:
    """Let readers after the forward pass read repetitions of the values ``recomputed``; in place.

    ``graph`` is a training step in the order in which it runs. A repetition has the phase
    ``recompute`` and the provenance of its original, and stands as late as it can. It makes the
    activation alone: running statistics, which are made beside one, are not updated again. Masks
    are functions of seed and step, so that they are the same ones. Names may have ``ALONE`` behind.

    Raises:
        ModelError: a name that no forward node makes.
    """
    made = {str(value.name): value for node in graph if is_forward(node) for value in node.outputs}
    names, alone = split_alone(recomputed)
    unknown = sorted(set(names) - made.keys())
    if unknown:
        raise ModelError(
            f"no forward node of this step makes {', '.join(unknown[:3])}: these activations "
            "cannot be recomputed; plan the memory again for this model and these shapes"
        )
    _Rematerialisation(graph, {made[n] for n in names}, {made[n] for n in alone}).run()


def is_forward(node: ir.Node) -> bool:
    """Whether a node of a training step belongs to the forward pass."""
    return node.metadata_props.get(PHASE) == FORWARD


def is_whole(node: ir.Node) -> bool:
    """Whether a node has all its outputs or does not exist: those of ONNX have optional ones."""
    return node.domain == COEXEC


Copies = dict[ir.Value, ir.Value]
"""Repetitions of values."""


class _Rematerialisation:
    """``again`` are repetitions that everybody may read."""

    def __init__(self, graph: ir.Graph, recomputed: set[ir.Value], alone: set[ir.Value]) -> None:
        self.graph = graph
        self.recomputed = recomputed
        self.alone = alone
        self.again: Copies = {}
        self.repeated: Counter[ir.Node] = Counter()

    def run(self) -> None:
        for node in list(self.graph):
            if is_forward(node):
                continue
            for position, value in enumerate(node.inputs):
                if value in self.recomputed:
                    assert value is not None
                    node.replace_input_with(position, self._repeat(value, node))

    def _repeat(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The repetition of a value: made before ``reader``, unless it was made before.

        A value that is alone is made of repetitions that nobody else sees.
        """
        again = self.again
        pending = [(value, again, {} if value in self.alone else again)]
        while pending:
            current, target, around = pending[-1]
            if current in again or current in target:
                pending.pop()
                continue
            missing = [
                operand
                for operand in _producer(current).inputs
                if operand is not None
                and operand in self.recomputed
                and operand not in again
                and operand not in around
            ]
            if not missing:
                pending.pop()
                self._clone(current, reader, target, around)
            for operand in missing:
                own = operand in self.alone
                pending.append((operand, again if own else around, {} if own else around))
        return again[value]

    def _clone(self, value: ir.Value, reader: ir.Node, target: Copies, around: Copies) -> None:
        """Repeat the node that makes ``value``, up to the last output that is recomputed."""
        node = _producer(value)
        count = 1 + max(v.index() or 0 for v in node.outputs if v in self.recomputed)
        if is_whole(node):
            count = len(node.outputs)
        self.repeated[node] += 1
        times = self.repeated[node]
        suffix = SUFFIX if times == 1 else f"{SUFFIX}{times}"
        inputs = [v if v is None else around.get(v, self.again.get(v, v)) for v in node.inputs]
        clone = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=count,
            version=node.version,
            name=f"{node.name}{suffix}",
            metadata_props={
                **node.metadata_props,
                PHASE: RECOMPUTE,
                SOURCE: node.metadata_props.get(SOURCE) or str(node.name),
            },
        )
        self.graph.insert_before(reader, clone)
        for old, new in zip(node.outputs, clone.outputs, strict=False):
            new.name = f"{old.name}{suffix}" if old.name else ""
            set_type(new, type_of(old))
            if old in self.recomputed or not is_whole(node):
                target[old] = new


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None  # rematerialise() took it from a node's outputs
    return node
