"""The k first of n elements in order: TopK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from coexec.core.types import OpCall
from coexec.ops.sort import top_k_axis
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)

SMALL_K = 32
"""Longest list that insertion keeps sorted cheaply."""

LEAST_PART = 32
"""Elements of a part on GPUs at least."""

RUN = 32
"""Elements that the merge sort first sorts by counting (RUN in sort.cl)."""


@dataclass(frozen=True)
class Lanes:
    """Sizes of a TopK: ``count`` lanes of ``n`` elements each, ``k`` wanted."""

    count: int
    n: int
    k: int
    inner: int
    defines: Mapping[str, str | int | float]
    values: Operand
    indices: Operand

    @classmethod
    def of(cls, call: OpCall) -> Lanes:
        data, axis = call.input(0), top_k_axis(call)
        inner = prod(data.shape[axis + 1 :])
        values, indices = call.has_output(0), call.has_output(1)
        result = call.output(0 if values else 1)
        defines: dict[str, str | int | float] = {
            "T": c_type(data.dtype),
            "LARGEST": int(bool(call.attribute("largest", 1))),
            "VALUES": int(values),
            "INDICES": int(indices),
        }
        return cls(
            prod(data.shape[:axis]) * inner,
            data.shape[axis],
            result.shape[axis],
            inner,
            defines,
            # An output that nobody reads is never written either.
            out(0) if values else out(1),
            out(1) if indices else out(0),
        )

    def sizes(self, *more: int) -> tuple[Scalar, ...]:
        return tuple(i32(v) for v in (self.n, self.k, self.inner, *more))

    def grid(
        self, entry: str, args: tuple[Argument, ...], width: int, local: int = 64
    ) -> KernelCall:
        """``width`` elements (padded) by lanes."""
        local = min(local, 1 << (width - 1).bit_length())
        size = (ceil_to(width, local), self.count)
        return KernelCall("sort", entry, args, size, (local, 1), self.defines)

    def emit(self, lists: Operand, width: int) -> KernelCall:
        args: tuple[Argument, ...] = (inp(0), lists, self.values, self.indices, *self.sizes(width))
        return self.grid("emit", args, self.k)


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    lanes = Lanes.of(call)
    if not lanes.count * lanes.k:
        return Lowering(())
    args: tuple[Argument, ...] = (inp(0), lanes.values, lanes.indices, *lanes.sizes())
    return Lowering((lanes.grid("rank", args, lanes.n, params["LOCAL"]),))


def _select(
    lanes: Lanes, given: Operand | None, lists: Operand, count: int, parts: int, local: int
) -> KernelCall:
    """Lists of the k first of each of ``parts`` parts of ``count`` candidates."""
    part = -(-count // parts)
    sizes = lanes.sizes(count, part, parts, lanes.count)
    return KernelCall(
        "sort",
        "select_first",
        (inp(0), given or inp(0), lists, *sizes),
        (ceil_to(lanes.count, local), parts),
        (local, 1),
        {**lanes.defines, "GIVEN": int(given is not None)},
    )


def _select_apart(
    lanes: Lanes, given: Operand | None, lists: Operand, count: int, parts: int, local: int
) -> KernelCall:
    """The same with parts side by side in a group, each of every ``parts``-th candidate."""
    one = _select(lanes, given, lists, count, parts, 1)
    local = min(local, power_of_two(parts))
    size = (ceil_to(parts, local), lanes.count)
    return replace(
        one, global_size=size, local_size=(local, 1), defines={**one.defines, "APART": 1}
    )


def lower_select(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Few lanes are divided into parts, so that the device is filled."""
    lanes = Lanes.of(call)
    if not lanes.count * lanes.k:
        return Lowering(())
    local = min(params["LOCAL"], power_of_two(lanes.count))
    wanted = facts.compute_units * params["PER_UNIT"] // lanes.count
    # A part is much longer than its list, or the second pass would be the longer one.
    parts = max(1, min(wanted, lanes.n // (4 * lanes.k)))
    first = _select(lanes, None, scratch(0), lanes.n, parts, local)
    lists = 4 * lanes.count * parts * lanes.k
    if parts == 1:
        return Lowering((first, lanes.emit(scratch(0), lanes.k)), (lists,))
    second = _select(lanes, scratch(0), scratch(1), parts * lanes.k, 1, local)
    emit = lanes.emit(scratch(1), lanes.k)
    return Lowering((first, second, emit), (lists, 4 * lanes.count * lanes.k))


def lower_passes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Lists of parts, of which the next pass makes fewer, until one is left for each lane."""
    lanes = Lanes.of(call)
    if not lanes.count * lanes.k:
        return Lowering(())
    calls: list[KernelCall] = []
    blocks: list[int] = []
    count, given = lanes.n, None
    while not calls or count > lanes.k:
        parts = max(1, -(-count // max(LEAST_PART, 4 * lanes.k)))
        lists = scratch(len(blocks))
        calls.append(_select_apart(lanes, given, lists, count, parts, params["LOCAL"]))
        blocks.append(4 * lanes.count * parts * lanes.k)
        count, given = parts * lanes.k, lists
    calls.append(lanes.emit(scratch(len(blocks) - 1), lanes.k))
    return Lowering(tuple(calls), tuple(blocks))


def lower_merge(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Sort the indices of every lane, between two scratch blocks."""
    lanes = Lanes.of(call)
    if not lanes.count * lanes.k:
        return Lowering(())
    sizes = (i32(lanes.n), i32(lanes.inner))
    local = params["LOCAL"]
    calls = [lanes.grid("runs", (inp(0), scratch(0), *sizes), lanes.n, local)]
    length, held = RUN, 0
    while length < lanes.n:
        args: tuple[Argument, ...] = (inp(0), scratch(held), scratch(1 - held), *sizes, i32(length))
        calls.append(lanes.grid("merge", args, lanes.n, local))
        length, held = 2 * length, 1 - held
    calls.append(lanes.emit(scratch(held), lanes.n))
    return Lowering(tuple(calls), (4 * lanes.count * lanes.n,) * 2)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((call.inputs[0], *call.outputs), facts)


def applies_select(call: OpCall, facts: DeviceFacts) -> str | None:
    k = Lanes.of(call).k
    return f"k = {k} is above {SMALL_K}" if k > SMALL_K else applies(call, facts)


def applies_merge(call: OpCall, facts: DeviceFacts) -> str | None:
    n = Lanes.of(call).n
    return f"n = {n}: counting is as fast" if n <= 2 * RUN else applies(call, facts)


FAMILY = KernelFamily(
    "sort",
    ("TopK",),
    (
        Variant(
            "select",
            lower_select,
            applies_select,
            {"LOCAL": (8, 32), "PER_UNIT": (16, 64, 256)},
            units=("cpu",),
        ),
        Variant("passes", lower_passes, applies_select, {"LOCAL": (64, 128)}, units=("gpu",)),
        Variant("merge", lower_merge, applies_merge, {"LOCAL": (64, 16, 256)}),
        Variant("naive", lower_naive, applies, {"LOCAL": (64, 16, 256)}),
    ),
)
