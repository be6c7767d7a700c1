"""Sessions: a model compiled for processors, run on named arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.arguments import check_texts
from coexec.base.collection import collection_paused
from coexec.base.errors import DataError, FallbackWarning, ModelError, ProcessorError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Program
from coexec.core.types import Array, OpCall
from coexec.frontend.division import Division
from coexec.frontend.specialise import ValuesNeeded, specialise, specialise_parts
from coexec.ops.node import call_of, known_type
from coexec.passes.batch_parallel import divide_batch
from coexec.passes.clean import clean
from coexec.passes.expand import expand
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.passes.produce_outputs import produce_outputs
from coexec.passes.schedule import schedule
from coexec.passes.split_operator import split_operators
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
    ) -> None:
        self.model = model
        self.follow = follow
        self.light = light
        self.processors = processors
        self.mode = mode
        self._inputs = Inputs(model)
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
        """Outputs by name (all, or those asked for) for inputs by name.

        Raises:
            DataError: missing or unknown names, or data of another shape or type.
            UsageError: ``outputs`` is no list.
        """
        arrays = self._inputs.check(feeds)
        known = self._outputs
        if outputs is not None:
            check_texts("outputs", outputs, str([*known]))
        unknown = [name for name in outputs or () if name not in known]
        if unknown:
            raise DataError(f"unknown outputs {unknown}; the model has {[*known]}")
        with watched(trace) as watching:
            return self.results(arrays, known if outputs is None else outputs, watching)

    def results(
        self, arrays: Mapping[str, Array], names: Sequence[str], trace: Trace | None
    ) -> dict[str, Array]:
        """The outputs ``names`` for arrays that are known to be inputs of the model."""
        return self._prepare(arrays).results(arrays, names, trace)

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
        kinds = {str(v.name): known_type(v) for v in model_inputs(self.model)}
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
        found = self._prepared.pop(key, None)
        self._last = self._prepared[key] = found or self._compile(arrays)
        if len(self._prepared) > PROGRAMS_KEPT:
            del self._prepared[next(iter(self._prepared))]
        return self._last

    @collection_paused()
    def _compile(self, arrays: Mapping[str, Array]) -> Prepared | Stages:
        shapes = {name: array.shape for name, array in arrays.items()}
        values = {name: arrays[name] for name in self._values if name in arrays}
        if self.follow is not None:
            return self._prepared_for(specialise(self.model, shapes, values, fold_parameters=True))
        found = specialise_parts(self.model, shapes, values)
        return self._staged(found) if isinstance(found, Division) else self._prepared_for(found)

    def _prepared_for(self, model: ir.Model) -> Prepared:
        fold_for_inference(model)
        processors = self.light if self.light and is_light(model) else self.processors
        return prepare(model, processors, self.mode, self.follow)

    def _staged(self, division: Division) -> Stages:
        """The parts of a model, of which the last one may have to be divided again."""
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
) -> Prepared:
    """Optimise, place (as the plan to follow says, if there is one) and lower a specialised model.

    Raises:
        ModelError: the plan to follow is none of this model, or divides a node as it cannot be.
        ProcessorError: it needs a processor that is not there or does not support its part.
    """
    names = tuple(str(value.name) for value in model.graph.outputs)
    model = legalise(model, processors, follow, fold_parameters=True)
    work: tuple[RegionWork, ...] = ()
    if follow is None:
        plan = place(model.graph, processors)
        warn_of_fallbacks(plan)
    else:
        plan = apply_plan(model.graph, follow, processors)
        work = region_work(model.graph, plan)
    program = lower(model.graph, Lowering(plan, processors, mode=mode))
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return Prepared(plan, program, Executor(program, processors), names, outputs, work)


def warn_of_fallbacks(plan: Plan) -> None:
    """A fallback is never silent: it is in the plan, and said when it is decided."""
    if plan.refusals:
        warnings.warn(f"not all on the first processor:\n{plan.table()}", FallbackWarning, 3)


def apply_plan(graph: ir.Graph, plan: Plan, processors: Mapping[str, Processor]) -> Plan:
    """Bring ``graph`` into the plan's order and divide what it divides; in place.

    Returns the plan of what the graph then is. Raises as :func:`prepare` does.
    """
    nodes = {str(node.name): node for node in graph}
    strangers = sorted(nodes.keys() ^ plan.processors.keys())
    if strangers:
        raise ModelError(
            f"the plan is not of this model: {len(strangers)} nodes are only in one of them "
            f"({', '.join(strangers[:3])}, ...)"
        )
    if plan.order:
        graph.remove(list(nodes.values()))
        graph.extend(nodes[name] for name in plan.order)
    plan = divide_batch(graph, split_operators(graph, plan))
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
    clean(model)
    produce_outputs(model.graph)
    schedule(model.graph)
    return model


def model_inputs(model: ir.Model) -> list[ir.Value]:
    """Graph inputs that are data: not the initializers that old models list there too."""
    initializers = model.graph.initializers
    return [value for value in model.graph.inputs if value.name not in initializers]


class Inputs:
    """What a model wants as inputs, looked up once for all that it is fed with.

    Its inputs must not change from then on.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._types = {str(value.name): _dtype_and_dims(value) for value in model_inputs(model)}

    def check(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As :func:`check_feeds`, which is asked only where arrays have to be converted or refused.

        Raises what that raises.
        """
        fast = isinstance(feeds, dict) and feeds.keys() == self._types.keys()
        if fast and all(_fits(feeds[name], *wanted) for name, wanted in self._types.items()):
            return {name: feeds[name] for name in self._types}
        return check_feeds(self.model, feeds)


def _dtype_and_dims(value: ir.Value) -> tuple[np.dtype[Any] | None, tuple[int | None, ...] | None]:
    """Element type and dimensions of an input; none where the model leaves them open."""
    dtype = None if value.dtype is None else np.dtype(value.dtype.numpy())
    if value.shape is None:
        return dtype, None
    return dtype, tuple(dim if isinstance(dim, int) else None for dim in value.shape.dims)


def _fits(array: Array, dtype: np.dtype[Any] | None, dims: tuple[int | None, ...] | None) -> bool:
    """Whether an input can be taken as it is; where types are open, not all that can be are."""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and not array.dtype.hasobject  # strings are refused, with their name
        and array.flags.c_contiguous
        and dims is not None
        and array.ndim == len(dims)
        and all(dim is None or dim == size for dim, size in zip(dims, array.shape, strict=True))
    )


def check_feeds(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``feeds`` as contiguous arrays of the model's element types, in the model's input order."""
    inputs = {str(value.name): value for value in model_inputs(model)}
    if not isinstance(feeds, Mapping):
        raise DataError(
            f"inputs are arrays by name, not {type(feeds).__name__}; "
            f"the model's inputs are {list(inputs)}"
        )
    unknown = [name for name in feeds if name not in inputs]
    missing = [name for name in inputs if name not in feeds]
    if unknown or missing:
        raise DataError(
            f"inputs do not fit the model: missing {missing}, unknown {unknown}; "
            f"the model's inputs are {list(inputs)}"
        )
    return {name: check_array(value, feeds[name]) for name, value in inputs.items()}


def check_array(value: ir.Value, data: Array) -> Array:
    """``data`` in the input's element type; refuses conversions that would lose information."""
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(f"input {value.name!r} is no array: {error}") from error
    dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else array.dtype
    if value.dtype == ir.DataType.STRING:
        raise DataError(f"input {value.name!r} wants strings; coexec computes on numbers")
    if array.dtype.kind in "OSU":
        raise DataError(f"input {value.name!r} is {array.dtype.name}; coexec computes on numbers")
    if array.dtype != dtype:
        allowed = array.dtype.kind == dtype.kind == "f" or np.can_cast(array.dtype, dtype, "safe")
        if not allowed:
            raise DataError(
                f"input {value.name!r} wants {dtype.name}, not {array.dtype.name}; convert it first"
            )
        array = array.astype(dtype)
    if value.shape is not None:
        _check_shape(value, array)
    return np.ascontiguousarray(array).reshape(array.shape)


def _check_shape(value: ir.Value, array: Array) -> None:
    assert value.shape is not None
    expected = tuple(value.shape.dims)
    fits = len(expected) == array.ndim and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(expected, array.shape, strict=False)
    )
    if not fits:
        text = "x".join(str(dim if isinstance(dim, int) else dim.value or "?") for dim in expected)
        given = "x".join(map(str, array.shape))
        raise DataError(f"input {value.name!r} wants shape {text}, the data has {given}")
