"""A sequence of kernels as one launch: their sources as functions, their arguments as a table.

A launch costs the host ten microseconds, which is what a run waits for where kernels take less.
The program of a sequence has a function for each kernel of some sources (``kernels/sequence.cl``);
which of them are called, for how many work-items and with what, stands in memory. So one program
serves every sequence of these kernels, and starts a single one, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from coexec.core.types import Array
from coexec.processors.opencl.executable import (
    ARENA,
    PAGE,
    PREPARED,
    KernelStep,
    ProgramSource,
    Slot,
    slots_of,
)
from coexec.processors.opencl.family import C_TYPES, Scalar
from coexec.processors.opencl.sources import kernel_source
from coexec.processors.opencl.together import names_of, suffixed

FAMILY = ENTRY = "sequence"
PLACES = (8, 16, 32, 64)
"""Blocks of memory that the launches of a program take: each costs time in each launch."""
MOST_BLOCKS = PLACES[-1]

_WORK_ITEM = {
    "get_global_id(d)": "((d) == 0 ? own_id0 : (d) == 1 ? own_id1 : own_id2)",
    "get_global_size(d)": "((d) == 0 ? all_ids0 : (d) == 1 ? all_ids1 : all_ids2)",
    "get_group_id(d)": "get_global_id(d)",
    "get_local_id(d)": "0",
    "get_local_size(d)": "1",
}
"""What a work-item in a group of its own may ask, from parameters that each function gets."""
_PARAMETERS = tuple(f"{name}{axis}" for name in ("own_id", "all_ids") for axis in range(3))
_FUNCTION = {
    "reqd_work_group_size(x, y, z)": "unused",
    "vec_type_hint(type)": "unused",
    "__kernel": "static __attribute__((noinline))",
}
"""What only kernels may be told. Inlined, as what is called once is, all would be one function."""
_MACROS = _WORK_ITEM | _FUNCTION
_KERNEL = re.compile(r"__kernel\b[^;{}]*?\bvoid\b(?:\s|\\\n)*\w+(?:\([^()]*\))?\s*\(")
_REFUSED = re.compile(r"\b(?:barrier\s*\(|__local\b|get_num_groups\b|void \w+\(void\))")
"""What work-items of a group share, what no function here is told, and kernels of nothing."""
_HEADER, _LINE = 6, 16
"""Words of a step before its arguments, and of a line of the caches (``sequence.cl``)."""
SHARES = 4
"""Shares of a step for each core: few claims, and yet nobody waits long for the last one."""


@dataclass(frozen=True)
class Function:
    """A kernel of source ``program``; ``kinds`` of its arguments: types of numbers, "" memory."""

    program: int
    entry: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Functions:
    """A program of functions, in the order of their numbers; launches take ``places`` blocks."""

    source: ProgramSource
    functions: tuple[Function, ...]
    places: int


@dataclass(frozen=True)
class Calls:
    """Steps as words of a table, from ``starts`` on, over blocks of memory that hold all slots."""

    table: Array
    starts: tuple[int, ...]
    blocks: tuple[Slot, ...]


def function_of(step: KernelStep) -> Function:
    """The kernel that a step calls."""
    kinds = tuple(arg.dtype if isinstance(arg, Scalar) else "" for arg in step.args)
    return Function(step.program, step.entry, kinds)


def may_join(step: KernelStep, source: ProgramSource) -> bool:
    """Whether a work-item may call the kernel of a step for one work-item of it after another.

    These are in groups of one: they have nothing in common, and their vectors are written out.
    """
    if step.local_size is None or prod(step.local_size) > 1 or source.parts > 1:
        return False
    if any(slot.kind == PAGE for slot in slots_of(step)):
        return False
    numbers = (arg.dtype for arg in step.args if isinstance(arg, Scalar))
    whole_words = all(np.dtype(kind).itemsize >= 4 for kind in numbers)
    return whole_words and _has_functions(source.text)


@lru_cache(maxsize=1024)  # of the texts of all programs, of some 20 KB each
def _has_functions(text: str) -> bool:
    return _REFUSED.search(text) is None and _KERNEL.search(text) is not None


def block_of(slot: Slot) -> Slot:
    """The block of memory that holds a slot: parts of the arena lie in one."""
    return Slot(slot.kind) if slot.kind in (ARENA, PREPARED) else slot


def functions_of(
    functions: Sequence[Function], sources: Sequence[ProgramSource], blocks: int, cores: int
) -> Functions:
    """One program of functions, for launches of up to so many blocks of memory on so many cores.

    The same functions in any order lead to the same text.
    """
    places = next(places for places in PLACES if places >= blocks)
    ordered = sorted(functions, key=lambda f: (sources[f.program].text, f.entry, f.kinds))
    parts = list(dict.fromkeys(each.program for each in ordered))
    text = [as_functions(sources[number].text, part) for part, number in enumerate(parts)]
    calls = [
        _case(number, suffixed(each.entry, parts.index(each.program)), each.kinds)
        for number, each in enumerate(ordered)
    ]
    lines = [
        *text,
        f"#define CORES {cores}",
        kernel_source("sequence"),
        _COMPUTE.replace("CASES", "\n".join(calls)),
        _kernel(places),
    ]
    source = ProgramSource(FAMILY, "\n".join(lines), len(parts))
    return Functions(source, tuple(ordered), places)


def as_functions(text: str, part: int) -> str:
    """A source with functions in the place of its kernels, and its part's number in all names."""
    names, macros = names_of(text)
    parameters = ", ".join(f"const int {name}" for name in _PARAMETERS)
    with_ids = _KERNEL.sub(lambda head: f"{head.group()}{parameters}, ", text)
    undone = (*names, *macros, *(name.partition("(")[0] for name in _MACROS))
    return "\n".join(
        (
            *(f"#define {name} {suffixed(name, part)}" for name in names),
            *(f"#define {name} {value}" for name, value in _MACROS.items()),
            with_ids,
            *(f"#undef {name}" for name in undone),
        )
    )


def calls_of(steps: Sequence[KernelStep], functions: Functions, cores: int) -> Calls:
    """The table of some steps, all of whose kernels are among the functions."""
    numbers = {function: number for number, function in enumerate(functions.functions)}
    blocks = list(dict.fromkeys(blocks_of(steps)))
    places = {block: number for number, block in enumerate(blocks)}
    words: list[int] = []
    starts = []
    for step in steps:
        starts.append(len(words))
        arguments = [word for arg in step.args for word in _words(arg, places)]
        extent = (*step.global_size, 1, 1)[:3]
        share = -(-prod(extent) // (cores * SHARES))
        which = numbers[function_of(step)]
        words += [_HEADER + len(arguments), which, *extent, share, *arguments]
    return Calls(np.array(words, np.int32), tuple(starts), tuple(blocks))


def counters_of(steps: int) -> Array:
    """Counters of a launch of so many steps, as they are before and after it (``sequence.cl``)."""
    return np.zeros((1 + 2 * steps) * _LINE, np.int32)


def blocks_of(steps: Sequence[KernelStep]) -> list[Slot]:
    """The blocks of memory of each argument of some steps."""
    return [block_of(slot) for step in steps for slot in slots_of(step)]


def _words(arg: Slot | Scalar, places: Mapping[Slot, int]) -> list[int]:
    """An argument as words of 32 bits, the lowest first."""
    if isinstance(arg, Scalar):
        return [int(word) for word in np.atleast_1d(arg.pack()).view(np.int32)]
    inside = arg.offset if arg.kind in (ARENA, PREPARED) else 0
    return [places[block_of(arg)], *(int(word) for word in np.array([inside]).view(np.int32))]


def _case(number: int, name: str, kinds: Sequence[str]) -> str:
    """The call of a function, with what the table has for it."""
    arguments, word = [], _HEADER
    for kind in kinds:
        arguments.append(_read(kind, word))
        word += 3 if kind == "" else np.dtype(kind).itemsize // 4
    return f"    case {number}: EACH {name}({', '.join(('IDS', *arguments))}); break;"


def _read(kind: str, word: int) -> str:
    if kind == "":
        return f"MEMORY({word})"
    if np.dtype(kind).itemsize == 4:
        return f"as_{C_TYPES[kind]}(step[{word}])"
    return f"as_{C_TYPES[kind]}((int2)(step[{word}], step[{word + 1}]))"


_COMPUTE = """
#define MEMORY(word) \\
    ((__global void *)(blocks[step[word]] + as_long((int2)(step[(word) + 1], step[(word) + 2]))))
#define EACH \\
    for (int i = first, x = i % n0, y = i / n0 % n1, z = i / n0 / n1; i < last; \\
         ++i, x = x + 1 < n0 ? x + 1 : 0, y = x ? y : y + 1 < n1 ? y + 1 : 0, z = x | y ? z : z + 1)
#define IDS x, y, z, n0, n1, n2

static void compute(const int first, const int last, __global const int *step, block const *blocks)
{
    const int n0 = step[EXTENT], n1 = step[EXTENT + 1], n2 = step[EXTENT + 2];
    switch (step[WHICH]) {
CASES
    }
}
"""


def _kernel(places: int) -> str:
    blocks = ", ".join(f"__global void *block{i}" for i in range(places))
    return f"""__kernel __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(float16)))
void {ENTRY}(__global const int *table, const int start, const int count,
              __global int *counters, {blocks})
{{
    block const blocks[] = {{{", ".join(f"block{i}" for i in range(places))}}};
    go_through(table + start, count, counters, blocks);
}}
"""
