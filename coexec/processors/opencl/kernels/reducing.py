"""Plans of a reduction: collapsed dimensions, segments, kernel calls in one or two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from coexec.processors.opencl.broadcast import contiguous_strides, line_geometry, power_of_two
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Operand,
    Scalar,
    c_type,
    ceil_to,
    i32,
    scratch,
)

ENOUGH_ITEMS, MANY_ITEMS = 512, 4096
"""Work-items below which a reduction is worth a second stage: of cores, and of a GPU, whose items
hide each other's waiting."""
LEAST_ELEMENTS, FEW_ELEMENTS = 1024, 256
"""Elements that a work-item reduces at least, where a second stage is used; likewise."""
ONE_GROUP = 1 << 14
"""Elements that one work-group of neighbours reduces to one before two launches would be faster."""
LEAST_OF_LANE = 4
"""Elements of a row for each of the work-items that share it, about."""
LONGEST_CHAIN = 2048
"""Additions in a row at most, so that float32 sums of any length keep their accuracy."""


@dataclass(frozen=True)
class Formula:
    """C text of a reduction over values ``v`` of type V; see ``reduce.cl`` for the macros."""

    init: str
    combine: str
    map: str = "(v)"
    finish: str = "(a)"
    shifted: bool = False

    def partial(self) -> Formula:
        """The first stage: nothing is finished."""
        return replace(self, finish="(a)")

    def second(self) -> Formula:
        """The second stage: partial results are mapped already."""
        return replace(self, map="(v)")


@dataclass(frozen=True)
class Problem:
    """Reduction of ``source``, collapsed to ``dims`` = (k0, r0, k1, r1), into ``target``.

    ``acc`` is the NumPy type of partial results; ``shift`` holds one value of it per output where
    the formula is shifted.
    """

    formula: Formula
    dims: tuple[int, int, int, int]
    source: Operand
    source_dtype: np.dtype[Any]
    target: Operand
    target_dtype: np.dtype[Any]
    acc: np.dtype[Any]
    shift: Operand | None = None

    @property
    def outputs(self) -> int:
        return self.dims[0] * self.dims[2]

    @property
    def count(self) -> int:
        """Elements reduced to one."""
        return self.dims[1] * self.dims[3]


def collapse(shape: Sequence[int], axes: Sequence[int]) -> list[tuple[bool, int, int]]:
    """Runs of kept or reduced dimensions, outermost first: (reduced, size, element stride)."""
    runs: list[tuple[bool, int, int]] = []
    for axis, (size, stride) in enumerate(zip(shape, contiguous_strides(shape), strict=True)):
        if size == 1:
            continue
        reduced = axis in axes
        if runs and runs[-1][0] == reduced:
            runs[-1] = (reduced, runs[-1][1] * size, stride)
        else:
            runs.append((reduced, size, stride))
    return runs


def four_dims(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int, int, int] | None:
    """``shape`` as (kept, reduced, kept, reduced), or ``None`` if it has more runs than that."""
    dims = [1, 1, 1, 1]
    place = 3
    for reduced, size, _ in reversed(collapse(shape, axes)):
        if reduced != (place % 2 == 1):
            place -= 1
        if place < 0:
            return None
        dims[place] = size
        place -= 1
    return dims[0], dims[1], dims[2], dims[3]


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type of partial results: float32 for float16, else the element's own."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def defines(problem: Problem, width: int) -> dict[str, str | int | float]:
    """Macros of ``reduce.cl``."""
    formula = problem.formula
    found: dict[str, str | int | float] = {
        "T": c_type(problem.source_dtype),
        "U": c_type(problem.target_dtype),
        "ACC": compute_type(problem.acc),
        "W": width,
        "INIT": formula.init,
        "MAP(V, v)": formula.map,
        "COMBINE(V, a, b)": formula.combine,
        "FINISH(V, a)": formula.finish,
    }
    if problem.acc != problem.source_dtype:
        found["WIDEN"] = 1
    if problem.acc != problem.target_dtype:
        found["ROUND"] = 1
    if formula.shifted:
        found["SHIFTED"] = 1
    return found


def count_argument(problem: Problem, count: int) -> Scalar:
    """``count`` in the accumulator's type (booleans are stored as bytes)."""
    name = "uint8" if problem.acc.kind == "b" else problem.acc.name
    wide = problem.acc.kind == "f" or count <= np.iinfo(name).max
    return Scalar(count if wide else 0, name)


def params_for_one(facts: DeviceFacts) -> Mapping[str, int]:
    """Parameters of ``reduce_calls`` for families of which a reduction is a small part."""
    if facts.unit_kind == "gpu":
        return {"WIDTH": 4, "LOCAL": 64, "INTERLEAVE": 1}
    return {"WIDTH": 16, "LOCAL": 16, "INTERLEAVE": 0}


def reduce_calls(
    problem: Problem, params: Mapping[str, int], first_scratch: int = 0
) -> tuple[list[KernelCall], list[int]]:
    """Kernel calls of one or two stages and the scratch blocks they need.

    Scratch blocks are numbered from ``first_scratch`` on.
    """
    count = problem.count
    if params["INTERLEAVE"] and problem.dims == (1, 1, 1, count) and count <= ONE_GROUP:
        return [group_call(problem, params, count)], []
    if problem.dims[3] == 1:
        return _columns(problem, params, first_scratch, count)
    return _rows(problem, params, first_scratch, count)


def _segments(items: int, steps: int, elements: int, params: Mapping[str, int]) -> int:
    """Parts to cut ``steps`` (of ``elements`` in all) into, with ``items`` work-items for each."""
    together = params["INTERLEAVE"]
    enough, least = (MANY_ITEMS, FEW_ELEMENTS) if together else (ENOUGH_ITEMS, LEAST_ELEMENTS)
    for_parallelism = min(-(-enough // max(items, 1)), elements // least)
    return max(1, min(steps, max(for_parallelism, -(-steps // LONGEST_CHAIN))))


def _two_stages(
    problem: Problem, segments: int, first_scratch: int
) -> tuple[Problem, list[Problem], list[int]]:
    """The first stage's problem, then the second stage's if there is more than one segment."""
    if segments == 1:
        return problem, [], []
    middle = scratch(first_scratch)
    first = replace(
        problem,
        formula=problem.formula.partial(),
        target=middle,
        target_dtype=problem.acc,
    )
    second = replace(
        problem,
        formula=problem.formula.second(),
        dims=(1, segments, problem.outputs, 1),
        source=middle,
        source_dtype=problem.acc,
    )
    return first, [second], [segments * problem.outputs * problem.acc.itemsize]


def _columns(
    problem: Problem, params: Mapping[str, int], first_scratch: int, count: int
) -> tuple[list[KernelCall], list[int]]:
    k0, r0, k1, _ = problem.dims
    width = params["WIDTH"]
    items = k0 * -(-k1 // width)
    segments = _segments(items, r0, r0 * min(k1, width), params)
    part = -(-r0 // segments)
    segments = -(-r0 // part)
    stage, rest, blocks = _two_stages(problem, segments, first_scratch)
    sizes, local = line_geometry(k1, k0, segments, width, params["LOCAL"])
    call = KernelCall(
        family="reduce",
        entry="columns",
        args=(
            stage.source,
            stage.shift or stage.source,
            stage.target,
            *map(i32, (k0, r0, k1, part)),
            count_argument(problem, count),
        ),
        global_size=sizes,
        local_size=local,
        defines=defines(stage, width),
    )
    return _with_second(call, rest, params, first_scratch, count, blocks)


def _rows(
    problem: Problem, params: Mapping[str, int], first_scratch: int, count: int
) -> tuple[list[KernelCall], list[int]]:
    _, r0, k1, r1 = problem.dims
    width, outputs = params["WIDTH"], problem.outputs
    vectors = max(r1 // width, 1)
    wanted = _segments(outputs, r0 * vectors, r0 * r1, params)
    part = -(-r0 // min(wanted, r0))
    outer = -(-r0 // part)
    chunk = -(-vectors // min(-(-wanted // outer), vectors))
    inner = -(-vectors // chunk)
    segments = outer * inner
    if params["INTERLEAVE"]:
        first, step, span = width, inner * width, r1
    else:
        first, step, span = chunk * width, width, chunk * width
    stage, rest, blocks = _two_stages(problem, segments, first_scratch)
    local0 = min(params["LOCAL"], power_of_two(segments))
    local1 = min(params["LOCAL"] // local0, power_of_two(outputs))
    lengths = (outputs, k1, r0, r1, segments, inner, part, first, step, span)
    call = KernelCall(
        family="reduce",
        entry="rows",
        args=(
            stage.source,
            stage.shift or stage.source,
            stage.target,
            *map(i32, lengths),
            count_argument(problem, count),
        ),
        global_size=(ceil_to(segments, local0), ceil_to(outputs, local1)),
        local_size=(local0, local1),
        defines=defines(stage, width),
    )
    return _with_second(call, rest, params, first_scratch, count, blocks)


def group_call(problem: Problem, params: Mapping[str, int], count: int) -> KernelCall:
    """A line of work-items for each output whose innermost elements are reduced, joined at the end.

    Short rows share a work-group; an item adds about four elements of a row at least. ``count`` is
    what formulas call so.
    """
    _, r0, k1, r1 = problem.dims
    lanes = params["LOCAL"]
    if problem.outputs > 1:
        lanes = min(lanes, power_of_two(-(-r1 // LEAST_OF_LANE)))
    rows = min(params["LOCAL"] // lanes, power_of_two(problem.outputs))
    return KernelCall(
        family="reduce",
        entry="groups",
        args=(
            problem.source,
            problem.shift or problem.source,
            problem.target,
            *map(i32, (problem.outputs, k1, r0, r1)),
            count_argument(problem, count),
        ),
        global_size=(lanes, ceil_to(problem.outputs, rows)),
        local_size=(lanes, rows),
        defines={**defines(problem, 1), "LANES": lanes, "ROWS": rows},
    )


def _with_second(
    call: KernelCall,
    rest: list[Problem],
    params: Mapping[str, int],
    first_scratch: int,
    count: int,
    blocks: list[int],
) -> tuple[list[KernelCall], list[int]]:
    calls = [call]
    for problem in rest:
        if params["INTERLEAVE"] and problem.outputs == 1:
            line = replace(problem, dims=(1, 1, 1, problem.count))
            calls.append(group_call(line, params, count))
            continue
        more, extra = _columns(problem, params, first_scratch + len(blocks), count)
        calls += more
        blocks = blocks + extra
    return calls, blocks


def strided_call(
    problem: Problem, shape: Sequence[int], axes: Sequence[int], params: Mapping[str, int]
) -> KernelCall:
    """One work-item per output over at most four kept and four reduced runs."""
    runs = collapse(shape, axes)
    kept = [(size, stride) for reduced, size, stride in runs if not reduced]
    gone = [(size, stride) for reduced, size, stride in runs if reduced]
    outputs = prod(size for size, _ in kept)
    count = prod(size for size, _ in gone)
    local = params["LOCAL"]
    numbers: list[int] = []
    for group in (kept, gone):
        padded = [(1, 0)] * (4 - len(group)) + group
        numbers += [size for size, _ in padded] + [stride for _, stride in padded]
    return KernelCall(
        family="reduce",
        entry="strided",
        args=(
            problem.source,
            problem.shift or problem.source,
            problem.target,
            *map(i32, (outputs, *numbers)),
            count_argument(problem, count),
        ),
        global_size=(ceil_to(outputs, local),),
        local_size=(local,),
        defines=defines(problem, 1),
    )
