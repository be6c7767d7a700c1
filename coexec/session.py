"""Sessions: a model compiled for processors, run on named arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from coexec.base.arguments import check_texts
from coexec.base.collection import collection_paused
from coexec.base.errors import DataError, FallbackWarning, ModelError, ProcessorError
from coexec.carried import Carried, Memory
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor, require_float16
from coexec.core.program import Program
from coexec.core.types import Array, OpCall
from coexec.frontend.division import Division
from coexec.frontend.specialise import ValuesNeeded, specialise, specialise_parts
from coexec.inputs import Inputs, model_inputs
from coexec.ops.node import call_of, known_type
from coexec.passes.batch_parallel import divide_batch
from coexec.passes.carry import carry
from coexec.passes.clean import clean
from coexec.passes.expand import expand
from coexec.passes.float16 import HALF, Conversion, as_asked, precision_of
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.passes.produce_outputs import produce_outputs
from coexec.passes.schedule import schedule
from coexec.passes.share_constants import share_constants
from coexec.passes.split_operator import split_operators
from coexec.passes.view_transposes import view_transposes
from coexec.placement.in_floats import NO_LAYERS, QuantisedLayers, layers_of, quantised_region
from coexec.placement.policies.first_that_can import place
from coexec.prepared import Prepared, Stages, is_light
from coexec.report.lines import watched
from coexec.runtime.bundle import save_bundle
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.runtime.region_work import RegionWork, region_work

Key = tuple[tuple[str, tuple[int, ...], bytes], ...]

PROGRAMS_KEPT = 64
"""Of a model for inputs of many shapes; the one that was not used for the longest time goes."""


class Session:
    """A compiled model. Shapes that the model leaves open are bound by the data of each run.

    ``plan`` tells where nodes went and which were refused where; ``peak_bytes`` is the device
    memory of the program that ran last (buffers and constants). With ``follow``, a plan of this
    model (of :func:`coexec.planning.planner.plan_inference`, or from a file), nodes go where that
    says. ``light`` processors take models whose work is next to nothing.

    A model that :func:`coexec.passes.float16.in_precision` asks float16 for is converted at the
    shapes of each program; ``conversions`` say what stays in float32.

    ``carried`` maps outputs to the inputs that they are in the next run: these tensors stay where
    they are, zeros at first. A run gives them as outputs only where it is asked for them.

    A model in which data decide shapes runs in parts (:class:`coexec.prepared.Stages`), if no plan
    is followed: the part behind what data decide has a session of its own.
    """

    def __init__(
        self,
        model: ir.Model,
        processors: Mapping[str, Processor],
        mode: ExecutionMode = DEFAULT,
        follow: Plan | None = None,
        light: Mapping[str, Processor] | None = None,
        carried: Mapping[str, str] | None = None,
    ) -> None:
        _require_precision(model, processors)
        self.model = model
        self._carried = Carried(model, carried or {})
        # A plan is one of the model as it is.
        self._source = self._carried.source(model) if follow is None else model
        self.follow = follow
        self.light = light
        self.processors = processors
        self.mode = mode
        self._inputs = Inputs(model, self._carried.inputs)
        self._outputs = tuple(str(value.name) for value in model.graph.outputs)
        self._prepared: dict[Key, Prepared | Stages] = {}
        self._values: tuple[str, ...] = ()
        self._last: Prepared | Stages | None = None
        if all(known_type(value) is not None for value in model_inputs(model)):
            self._try_static()

    def run(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        trace: Trace | None = None,
    ) -> dict[str, Array]:
        """Outputs by name (those not carried, or those asked for) for inputs by name.

        An input that is carried may be left out: it is what the last run made of it.

        Raises:
            DataError: missing or unknown names, or data of another shape or type.
            UsageError: ``outputs`` is no list.
        """
        arrays = self._carried.take(self._inputs.check(feeds))
        known, carried = self._outputs, self._carried.pairs
        if outputs is not None:
            check_texts("outputs", outputs, str([*known]))
        unknown = [name for name in outputs or () if name not in known]
        if unknown:
            raise DataError(f"unknown outputs {unknown}; the model has {[*known]}")
        if outputs is None:
            outputs = [name for name in known if name not in carried] if carried else known
        with watched(trace) as watching:
            if not carried:
                return self.results(arrays, outputs, watching)
            read = [name for name in outputs if name not in carried]
            found = self.results(arrays, read, watching)
        return {n: found[n] if n in found else self._carried.value(n) for n in outputs}

    def results(
        self, arrays: Mapping[str, Array], names: Sequence[str], trace: Trace | None
    ) -> dict[str, Array]:
        """The outputs ``names`` for arrays that are known to be inputs of the model."""
        prepared = self._prepare(arrays)
        if self._carried.pairs and isinstance(prepared, Prepared):
            self._carried.states.begin(prepared.executor)
        return prepared.results(arrays, names, trace)

    def reset(self, values: Mapping[str, Array] | None = None) -> None:
        """Let the next run begin with zeros in carried inputs, or with ``values`` by their names.

        Raises:
            DataError: a name is none of a carried input, or a value does not fit it.
        """
        self._carried.reset(values or {})

    def carried(self) -> dict[str, Array]:
        """Carried inputs by name, as the last run left them; :meth:`reset` takes the same.

        Raises:
            DataError: there was no run.
        """
        return self._carried.values()

    @property
    def plan(self) -> Plan:
        return self._current().plan

    @property
    def program(self) -> Program:
        """The program that ran last; ``ModelError`` for a model that runs in parts."""
        return self._current().program

    @property
    def work(self) -> tuple[RegionWork, ...]:
        """What each launch of the program computes, where the session follows a plan."""
        return self._current().work

    @property
    def fallbacks(self) -> str:
        """Nodes that did not run on the first processor, as a table; empty if all did."""
        return self.plan.table()

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """What of the model computes in float16, of each part that computes; none in float32."""
        return self._current().conversions

    @property
    def quantised(self) -> QuantisedLayers:
        """How many layers are quantised, and which of them compute in floats, where and why."""
        return self._current().quantised

    @property
    def peak_bytes(self) -> int:
        """Device memory of the program, or of all parts: buffers and constants."""
        return sum(program.peak_bytes for program in self.programs)

    @property
    def programs(self) -> tuple[Program, ...]:
        """What ran last: one program, or one for each part that computes."""
        return self._current().programs

    def save(self, path: str | Path) -> None:
        """Save program and weights as a bundle that runs with NumPy and PyOpenCL alone."""
        save_bundle(self.program, Path(path))

    def _current(self) -> Prepared | Stages:
        if self._last is None:
            raise DataError("the model's shapes are not known yet: run it once or give shapes")
        return self._last

    def _try_static(self) -> None:
        """Compile now what can be: the first run then only runs."""
        try:
            self._last = self._compile({})
        except ValuesNeeded as needed:
            self._values = tuple(needed.names)
            return
        fed = [v for v in model_inputs(self.model) if v.name not in self._carried.inputs]
        kinds = {str(value.name): known_type(value) for value in fed}
        key = tuple((name, kind.shape, b"") for name, kind in kinds.items() if kind is not None)
        self._prepared[key] = self._last

    def _prepare(self, arrays: Mapping[str, Array]) -> Prepared | Stages:
        while True:
            try:
                return self._lookup(arrays)
            except ValuesNeeded as needed:
                # Each round learns of more inputs whose values decide shapes, at last of none.
                new = [name for name in needed.names if name not in self._values]
                if not new:
                    raise
                self._values += tuple(new)

    def _lookup(self, arrays: Mapping[str, Array]) -> Prepared | Stages:
        key = tuple(
            (name, array.shape, array.tobytes() if name in self._values else b"")
            for name, array in arrays.items()
        )
        key += tuple((name, shape, b"") for name, shape in self._carried.shapes.items())
        found = self._prepared.pop(key, None)
        self._last = self._prepared[key] = found or self._compile(arrays)
        if len(self._prepared) > PROGRAMS_KEPT:
            del self._prepared[next(iter(self._prepared))]
        return self._last

    @collection_paused()
    def _compile(self, arrays: Mapping[str, Array]) -> Prepared | Stages:
        shapes = {name: array.shape for name, array in arrays.items()} | self._carried.shapes
        values = {name: arrays[name] for name in self._values if name in arrays}
        if self.follow is not None:
            return self._prepared_for(
                specialise(self._source, shapes, values, fold_parameters=True)
            )
        found = specialise_parts(self._source, shapes, values)
        return self._staged(found) if isinstance(found, Division) else self._prepared_for(found)

    def _prepared_for(self, model: ir.Model) -> Prepared:
        fold_for_inference(model)
        converted = as_asked(model)
        processors = self.light if self.light and is_light(model) else self.processors
        memory, pairs = self._carried.memory(model), self._carried.pairs
        prepared = prepare(model, processors, self.mode, self.follow, pairs, memory)
        return prepared if converted is None else replace(prepared, conversions=(converted,))

    def _staged(self, division: Division) -> Stages:
        """The parts of a model, of which the last one may have to be divided again.

        Raises:
            ModelError: tensors are carried, which is for one program.
        """
        if self._carried.pairs:
            raise ModelError(
                f"{', '.join(self._carried.pairs)}: nothing can be carried in a model in which "
                "data decide shapes, as it runs in parts"
            )
        head, tail = division.head, division.tail
        last = list(self.processors)[-1]
        return Stages(
            None if head is None else self._prepared_for(head),
            division.searches,
            None
            if tail is None
            else Session(tail, self.processors, self.mode, light={last: self.processors[last]}),
        )


def prepare(
    model: ir.Model,
    processors: Mapping[str, Processor],
    mode: ExecutionMode,
    follow: Plan | None = None,
    carried: Mapping[str, str] | None = None,
    memory: Memory | None = None,
) -> Prepared:
    """Optimise, place (as the plan to follow says, if there is one) and lower a specialised model.

    Outputs that are ``carried`` to inputs of the next run stay there, in ``memory``.

    Raises:
        ModelError: the plan to follow is none of this model, or divides a node as it cannot be.
        ProcessorError: it needs a processor that is not there or does not support its part.
    """
    names = tuple(str(value.name) for value in model.graph.outputs)
    model = legalise(model, processors, follow, fold_parameters=True)
    work: tuple[RegionWork, ...] = ()
    whole = quantised_region(model.graph)
    if follow is None:
        plan = place(model.graph, processors)
        warn_of_fallbacks(plan)
    else:
        plan = apply_plan(model.graph, follow, processors)
    layers = NO_LAYERS if whole is None else layers_of(whole, follow or plan, processors)
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    made, memory = dict(zip(names, outputs, strict=True)), memory or Memory()
    state = {made[output]: name for output, name in (carried or {}).items()}
    if state:
        plan = carry(model.graph, state, plan, processors)
    if follow is not None:
        work = region_work(model.graph, plan)
    inputs = frozenset(state.values())
    how = Lowering(plan, processors, state, inputs, homes=memory.homes, mode=mode)
    program = lower(model.graph, how)
    executor = Executor(program, processors, memory.buffers)
    memory.adopt(executor)
    return Prepared(plan, program, executor, names, outputs, work, quantised=layers)


def _require_precision(model: ir.Model, processors: Mapping[str, Processor]) -> None:
    """Refuse a model that is to compute in what the first processor does not have."""
    if precision_of(model) == HALF:
        require_float16(processors, f"precision {HALF!r}")


def warn_of_fallbacks(plan: Plan) -> None:
    """A fallback is never silent: it is in the plan, and said when it is decided."""
    if plan.refusals:
        warnings.warn(f"not all on the first processor:\n{plan.table()}", FallbackWarning, 3)


def apply_plan(
    graph: ir.Graph, plan: Plan, processors: Mapping[str, Processor], if_partly: str = ""
) -> Plan:
    """Bring ``graph`` into the plan's order and divide what it divides; in place.

    Returns the plan of what the graph then is. Raises as :func:`prepare` does; of a plan that has
    some of the graph's nodes, it also says ``if_partly``.
    """
    nodes = {str(node.name): node for node in graph}
    strangers = sorted(nodes.keys() ^ plan.processors.keys())
    if strangers:
        partly = not nodes.keys().isdisjoint(plan.processors)
        raise ModelError(
            f"the plan is not of this model: {len(strangers)} nodes are only in one of them "
            f"({', '.join(strangers[:3])}, ...){if_partly if partly else ''}"
        )
    if plan.order:
        graph.remove(list(nodes.values()))
        graph.extend(nodes[name] for name in plan.order)
    plan = divide_batch(graph, split_operators(graph, plan, processors))
    for node in graph:
        name = plan.processors[str(node.name)]
        if name not in processors:
            raise ProcessorError(f"the plan needs processor {name!r}; there are {[*processors]}")
        call = call_of(node)
        support = processors[name].supports(call)
        if not support.yes:
            raise ProcessorError(
                f"the plan has {call.identifier} {node.name!r} on {name}, "
                f"which does not execute it: {support.reason}"
            )
    return plan


def legalise(
    model: ir.Model,
    processors: Mapping[str, Processor],
    follow: Plan | None = None,
    *,
    fold_parameters: bool = False,
) -> ir.Model:
    """Rewrite what no processor but the last resort executes into what the first one does.

    Nodes that the plan to ``follow`` names stay as they are. ``fold_parameters``: none of them
    changes any more, so what bodies compute from them alone is computed now.
    """
    _require_precision(model, processors)
    first = next(iter(processors.values()))
    if follow is not None:
        # Plans do not name what was merged: that must not be rewritten for want of a processor.
        clean(model)

    def unwanted(call: OpCall) -> bool:
        if follow is not None:
            return call.name not in follow.processors
        return not first.supports(call).yes

    # A body may use operators with bodies of their own; each round goes one level deeper.
    while expand(model, unwanted):
        model = specialise(model, {}, {}, fold_parameters=fold_parameters)
    if fold_parameters:  # bodies bring constants and transposes of their own
        share_constants(model.graph)
        view_transposes(model.graph)
    clean(model)
    produce_outputs(model.graph)
    schedule(model.graph)
    return model
