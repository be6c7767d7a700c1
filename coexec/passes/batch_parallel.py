"""Divide a batch among processors: each computes its own samples, in inference and in training.

What depends on the samples alone is divided; what sums over them (weight gradients) is computed in
shares that are added where the sum is read; batch normalisation takes its statistics over all
shares (:mod:`coexec.passes.synchronised_norm`). Layers with more filters than activations are
divided by channels instead (:mod:`coexec.passes.channel_shares`). The rest stays whole: parameters,
their updates, the loss, and what no rule divides, which reads joined values. Each rewrite keeps
what the graph computes, whatever the first axis of an input means.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.plan import Plan
from coexec.ops.batch_norm import is_training
from coexec.ops.builder import PHASE, ROLE, SOURCE, STATE, GraphBuilder
from coexec.ops.node import attributes_of, call_of, constant_of, type_of
from coexec.ops.split_rules import way
from coexec.passes.batch_ways import Divided, Way, find_way, is_reduction, results_of
from coexec.passes.channel_shares import CHANNELS, find_channel_way, readings
from coexec.passes.rematerialise import FORWARD, SUFFIX
from coexec.passes.synchronised_norm import Norms, Statistics

CHEAP = frozenset({"coexec::BernoulliMask", "coexec::RandomNumbers"})
"""Operators without data to read: each processor makes what it needs of their results itself."""

SHARE = "coexec.share"
"""Property of nodes that are made for each processor, of as much as that has of the batch."""
NORMS: Mapping[str, Collection[int]] = {
    "BatchNormalization": {0},
    "coexec::BatchNormalizationGrad": {0, 2},
    "coexec::BatchNormalizationSums": {0, 2},
}
"""Operands with samples and channels; the others have one value per channel."""


def divide_batch(graph: ir.Graph, plan: Plan) -> Plan:
    """Divide the batch in ``graph`` (static types, execution order) as ``plan.batch`` says.

    In place. ``plan.processors`` says where nodes run that stay whole; ``plan.batch`` is a ratio if
    the batch has another size. Returns the plan of the new graph.

    Raises:
        ModelError: no input has a first axis with a sample for each processor.
    """
    return _Divider(graph, plan).run() if plan.batch else plan


def rows_of(batch: Mapping[str, int], size: int) -> dict[str, int]:
    """Samples by processor: as planned if they are ``size``, else in the same ratio.

    Raises:
        ModelError: there is none for one of the processors.
    """
    edges = np.rint(np.cumsum([0, *batch.values()]) * size / sum(batch.values())).astype(int)
    rows = dict(zip(batch, np.diff(edges).tolist(), strict=True))
    if min(rows.values()) < 1:
        raise ModelError(f"{size} samples cannot be divided among processors as {dict(batch)}")
    return rows


def batch_size(graph: ir.Graph, parts: int) -> int:
    """Samples of a batch: the first axis of the first input that is data and has axes.

    Raises:
        ModelError: they are fewer than ``parts``.
    """
    shapes = (type_of(value).shape for value in graph.inputs if not _is_state(value))
    size = next((int(shape[0]) for shape in shapes if shape), 0)
    if size < parts:
        raise ModelError(f"a batch of {size} samples cannot be divided among {parts} processors")
    return size


class _Divider:
    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.builder = GraphBuilder(graph, "")
        self.rows = rows_of(plan.batch, batch_size(graph, len(plan.batch)))
        ends = np.cumsum([0, *self.rows.values()]).tolist()
        bounds = dict(zip(self.rows, itertools.pairwise(ends), strict=True))
        self.samples = Divided(0, bounds, {})
        self.nodes: list[ir.Node] = []
        self.processors: dict[str, str] = {}
        self.divided: dict[ir.Value, Divided] = {}
        self.sums: dict[ir.Value, Mapping[str, ir.Value]] = {}
        self.replaced: dict[ir.Value, ir.Value] = {}
        self.cheap: dict[ir.Value, ir.Node] = {}
        self.wholes: dict[tuple[ir.Value, str], ir.Value] = {}
        self.cuts: dict[tuple[ir.Value, int, int, int, str, bool], ir.Value] = {}
        self.spares = plan.early or bool(plan.recompute)
        # By the operand's name; a repetition of that has the same.
        self.statistics: dict[str, Statistics] = {}
        self.norms = Norms(self._emit, self.rows)

    def run(self) -> Plan:
        for value in self.graph.inputs:
            if self._is_batch(value):
                self._divide_input(value)
        old = list(self.graph)
        for node in old:
            self.builder.phase = node.metadata_props.get(PHASE, "")
            self.builder.source = node.metadata_props.get(SOURCE) or str(node.name)
            if not (self._normalise(node) or self._make_cheap(node) or self._share(node)):
                self._keep(node)
        self._join_outputs()
        kept = set(self.nodes)
        for node in reversed(old):
            if node not in kept:
                self.graph.remove(node, safe=True)
        self.graph.remove(self.nodes)
        self.graph.extend(self.nodes)
        order = tuple(str(node.name) for node in self.nodes)
        return replace(self.plan, processors=self.processors, order=order, batch={})

    def _is_batch(self, value: ir.Value) -> bool:
        return self._has_samples(value) and not _is_state(value)

    def _has_samples(self, value: ir.Value) -> bool:
        shape = type_of(value).shape
        return bool(shape) and shape[0] == sum(self.rows.values())

    def _divide_input(self, value: ir.Value) -> None:
        """Samples of an input are cut out where they are read, if they are."""
        self.divided[value] = self.samples
        self.wholes |= {(value, place): value for place in self.rows}

    def _keep(self, node: ir.Node) -> None:
        """A node that stays as it is reads whole values."""
        place = self.plan.processors[str(node.name)]
        for index, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(index, self._whole(value, place))
        self.nodes.append(node)
        self.processors[str(node.name)] = place

    def _make_cheap(self, node: ir.Node) -> bool:
        if call_of(node).identifier not in CHEAP:
            return False
        self.cheap[node.outputs[0]] = node
        return True

    def _normalise(self, node: ir.Node) -> bool:
        """Batch normalisation in training, and its gradient."""
        call = call_of(node)
        x = node.inputs[0] if node.inputs else None
        known = self.divided.get(x) if x is not None else None
        if x is None or known is None:
            return False
        if known.axis == CHANNELS:
            return self._normalise_channels(node, known)
        home = self.plan.processors[str(node.name)]
        shares = {place: self._part(x, 0, *known.bounds[place], place) for place in self.rows}
        name = str(x.name).partition(SUFFIX)[0]
        outputs: Sequence[ir.Value | None] = ()
        if call.identifier == "BatchNormalization" and is_training(call):
            if name in self.statistics and not (call.has_output(1) or call.has_output(2)):
                results = self.norms.again(node, shares, self.statistics[name])
            else:
                results, self.statistics[name], outputs = self.norms.forward(node, shares, home)
        elif call.identifier == "coexec::BatchNormalizationGrad" and name in self.statistics:
            found = self.statistics[name]
            dy = node.inputs[2]
            assert dy is not None
            parts = {place: self._part(dy, 0, *known.bounds[place], place) for place in self.rows}
            made = self.norms.backward(node, shares, parts, found, home)
            results, outputs = made[0], made[1:]
        else:
            return False
        self.divided[node.outputs[0]] = Divided(0, known.bounds, results)
        for value, new in zip(node.outputs[1:], outputs, strict=False):
            if new is not None:
                self.replaced[value] = new
        return True

    def _normalise_channels(self, node: ir.Node, known: Divided) -> bool:
        """The same where each processor has all samples of its channels: nothing is sent."""
        call = call_of(node)
        wide = NORMS.get(call.identifier, ())
        if not wide or (call.identifier == "BatchNormalization" and not is_training(call)):
            return False
        made: dict[str, tuple[ir.Value, ...]] = {}
        for place, bounds in known.bounds.items():
            operands = [
                None if v is None else self._part(v, CHANNELS if i in wide else 0, *bounds, place)
                for i, v in enumerate(node.inputs)
            ]
            how = (place, node.op_type, operands, attributes_of(node), len(node.outputs))
            made[place] = self._emit(*how, domain=node.domain, version=node.version)
            _mark_share(made[place][0])
        for i, value in enumerate(node.outputs):
            shares = {place: results[i] for place, results in made.items()}
            axis = CHANNELS if type_of(value).rank > 1 else 0
            self.divided[value] = Divided(axis, known.bounds, shares)
        return True

    def _share(self, node: ir.Node) -> bool:
        """Shares of a node that reads divided values, if a rule divides it."""
        how = self._way(node)
        if how is None:
            return False
        made: dict[str, tuple[ir.Value, ...]] = {}
        results = results_of(node)
        for place in self.rows:
            inputs: list[ir.Value | None] = []
            for index, value in enumerate(node.inputs):
                axis = how.operands.get(index)
                if value is None:
                    inputs.append(None)
                elif axis is None:
                    inputs.append(self._whole(value, place))
                else:
                    inputs.append(self._part(value, axis, *how.bounds[place], place))
            inputs, attributes = self._resized(node, how, place, inputs)
            call = (place, node.op_type, inputs, attributes, len(results))
            made[place] = self._emit(*call, domain=node.domain, version=node.version)
            _mark_share(made[place][0])
        for index, value in enumerate(results):
            self._know(value, how, {place: values[index] for place, values in made.items()})
        return True

    def _know(self, value: ir.Value, how: Way, made: Mapping[str, ir.Value]) -> None:
        """What each processor has made of a value: a summand of it, or its share."""
        axis = how.axis
        if axis is not None:
            ends = np.cumsum([0, *(type_of(made[p]).shape[axis] for p in self.rows)]).tolist()
            bounds = dict(zip(self.rows, itertools.pairwise(ends), strict=True))
            self.divided[value] = Divided(axis, bounds, made)
            return
        self.sums[value] = made
        if how.operands.get(0) != 0 and self._has_samples(value):
            # A sum over channels is one of samples, to be cut once it is added up.
            self.divided[value] = self.samples

    def _resized(
        self, node: ir.Node, how: Way, place: str, inputs: list[ir.Value | None]
    ) -> tuple[list[ir.Value | None], dict[str, Any]]:
        """Shapes that a node has as an operand or an attribute, for a share."""
        call, attributes = call_of(node), attributes_of(node)
        start, stop = how.bounds[place]
        if call.identifier == "Reshape":
            shape = list(call.output(0).shape)
            shape[0] = shape[0] * (stop - start) // call.input(0).shape[0]
            inputs[1] = self.builder.constant(np.array(shape, np.int64), np.dtype(np.int64))
            attributes["allowzero"] = 0
        elif how.axis is not None and not is_reduction(call):
            attributes |= way(call, how.axis).changes(start, stop)
        return inputs, attributes

    def _way(self, node: ir.Node) -> Way | None:
        divided = {
            i: self.divided[v]
            for i, v in enumerate(node.inputs)
            if v is not None and v in self.divided
        }
        x = node.inputs[0] if node.inputs else None
        if not divided or x is None:
            return None
        call = call_of(node)
        joined = all((x, place) in self.wholes for place in self.rows)
        how = find_channel_way(call, self.rows, joined=joined) if 0 in divided else None
        samples = [i for i in divided if (v := node.inputs[i]) and self._has_samples(v)]
        ways = (find_way(call, each) for each in readings(divided, self.samples, samples))
        return how or next((way for way in ways if way is not None), None)

    def _part(self, value: ir.Value, axis: int, start: int, stop: int, place: str) -> ir.Value:
        """Elements of an axis of a value on a processor: its share, or a cut of the whole."""
        known = self.divided.get(value)
        fits = known is not None and (known.axis, known.bounds[place]) == (axis, (start, stop))
        if known is not None and fits and place in known.values:
            return known.values[place]
        return self._slice(self._whole(value, place), axis, start, stop, place)

    def _slice(self, value: ir.Value, axis: int, start: int, stop: int, place: str) -> ir.Value:
        """A copy; plans that save memory do not keep it between the passes, but make it again."""
        constant = None if value.is_graph_input() else constant_of(value)
        late = constant is None and self.spares and self.builder.phase != FORWARD
        key = (value, axis, start, stop, place, late)
        if key not in self.cuts:
            if constant is not None:
                cut = np.ascontiguousarray(constant[(*[slice(None)] * axis, slice(start, stop))])
                self.cuts[key] = self.builder.initializer(f"{value.name}[{start}:{stop}]", cut)
            else:
                bounds = [
                    self.builder.constant([n], np.dtype(np.int64)) for n in (start, stop, axis)
                ]
                (self.cuts[key],) = self._emit(place, "Slice", [value, *bounds], {})
        return self.cuts[key]

    def _whole(self, value: ir.Value, place: str) -> ir.Value:
        """A value in one piece on a processor: joined, added up, made again, or as it is."""
        if value in self.replaced:
            return self.replaced[value]
        key = (value, place)
        if key in self.wholes:
            return self.wholes[key]
        if value in self.sums:
            kind = "Add" if len(self.rows) == 2 else "Sum"
            (self.wholes[key],) = self._emit(place, kind, list(self.sums[value].values()), {})
        elif value in self.divided:
            known = self.divided[value]
            parts = [known.values[name] for name in self.rows]
            (self.wholes[key],) = self._emit(place, "Concat", parts, {"axis": known.axis})
        elif value in self.cheap:
            node = self.cheap[value]
            inputs = [None if v is None else self._whole(v, place) for v in node.inputs]
            made = (place, node.op_type, inputs, attributes_of(node))
            (self.wholes[key],) = self._emit(*made, domain=node.domain)
        else:
            return value
        return self.wholes[key]

    def _join_outputs(self) -> None:
        """Outputs of the graph are whole and keep their names."""
        for index, value in enumerate(list(self.graph.outputs)):
            place = max(self.rows, key=lambda name: self.rows[name])
            whole = self._whole(value, place)
            if whole is not value:
                value.name, whole.name = f"{value.name}#divided", value.name
                self.graph.outputs[index] = whole

    def _emit(
        self,
        place: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: int = 1,
        domain: str = "",
        version: int | None = None,
    ) -> tuple[ir.Value, ...]:
        """A new node on a processor."""
        made = self.builder.ops(op_type, inputs, attributes, outputs=outputs, domain=domain)
        node = made[0].producer()
        assert node is not None
        node.version = version
        self.nodes.append(node)
        self.processors[str(node.name)] = place
        return made


def _mark_share(value: ir.Value) -> None:
    node = value.producer()
    assert node is not None
    node.metadata_props[SHARE] = "1"


def _is_state(value: ir.Value) -> bool:
    return value.metadata_props.get(ROLE) == STATE
