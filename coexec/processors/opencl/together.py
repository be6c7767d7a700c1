"""Few programs instead of many: some drivers keep much memory for each that is loaded.

The sources of several programs become one. What a source declares at file scope gets its number as
a suffix, by macros that are defined in front of it and taken back behind it, and so are its own.
Kernels are the same code under other names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable, ProgramSource, Step

MOST = 16
"""Sources in a program: several programs are compiled side by side, and one is compiled anew as a
whole when one of its sources changes."""
FAMILY = "together"

_HIDDEN = re.compile(r"\\\n|/\*.*?\*/|//[^\n]*", re.DOTALL)
"""What is not read: comments, and the ends of lines that go on."""
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
_OUTER = re.compile(r"^(?:[A-Za-z_]|\}[ \t]*\w).*$", re.MULTILINE)
"""What is declared at file scope begins there, and nothing else does."""
_BRACKETS = re.compile(r"\([^()]*\)")
_DECLARED = re.compile(r"([A-Za-z_]\w*)[~(\[=;]")
_MADE = re.compile(r"^[A-Z]\w*\(([A-Za-z_]\w*)")
"""A macro that declares what its first argument says."""
_TYPED = re.compile(r"\bCAT\((\w+_), \w+\)\([^()]*\)\s*\{")
"""A macro's function whose name is a prefix and a type of numbers."""
_TYPES = ("float", "float2", "float4", "float8", "float16")
_Kernel = TypeVar("_Kernel", bound=Step)


def together(executable: OpenCLExecutable) -> OpenCLExecutable:
    """The same steps by as few programs as :data:`MOST` allows.

    The same programs in any order lead to the same texts.
    """
    sources = executable.programs
    if len(sources) < 2:
        return executable
    order = sorted(range(len(sources)), key=lambda number: _digest(sources[number].text))
    count = -(-len(sources) // MOST)
    groups = [order[first::count] for first in range(count)]
    places = {
        number: (program, part)
        for program, numbers in enumerate(groups)
        for part, number in enumerate(numbers)
    }
    return replace(
        executable,
        programs=tuple(joined([sources[number] for number in numbers]) for numbers in groups),
        steps=tuple(_moved(step, places) for step in executable.steps),
        preparation=tuple(_moved(step, places) for step in executable.preparation),
    )


def joined(sources: Sequence[ProgramSource]) -> ProgramSource:
    """One program with the kernels of all sources, each with its source's number as a suffix."""
    lines: list[str] = []
    for part, source in enumerate(sources):
        names, macros = names_of(source.text)
        lines += [f"#define {name} {suffixed(name, part)}" for name in names]
        lines.append(source.text)
        lines += [f"#undef {name}" for name in (*names, *macros)]
    parts = sum(source.parts for source in sources)
    return ProgramSource(FAMILY, "\n".join((*lines, "")), parts)


def suffixed(name: str, part: int) -> str:
    """What a name of a source is called in the program."""
    return f"{name}_{part}"


def names_of(text: str) -> tuple[list[str], list[str]]:
    """What a source declares at file scope (functions, types, tables), and its macros.

    There may be more among the former: what is renamed everywhere in its source needs not be
    declared there.
    """
    text = _HIDDEN.sub(" ", text)
    macros = set(_MACRO.findall(text))
    names = {prefix + kind for prefix in _TYPED.findall(text) for kind in _TYPES}
    names |= {name for line in _OUTER.findall(text) for name in _declared(line)}
    names -= macros.union(_TYPES)
    return sorted(name for name in names if not name.startswith("__")), sorted(macros)


def _declared(line: str) -> list[str]:
    """Names of a line in front of brackets, ``=`` and ``;``, and of any body or value."""
    made = _MADE.findall(line)
    line = re.split(r"(?<=[={])", line, maxsplit=1)[0]
    while (shorter := _BRACKETS.sub("~", line)) != line:
        line = shorter
    return made + _DECLARED.findall(re.sub(r"\s*__attribute__~|\s+(?=[\[=;])", "", line))


def _moved(step: _Kernel, places: dict[int, tuple[int, int]]) -> _Kernel:
    if not isinstance(step, KernelStep):
        return step
    program, part = places[step.program]
    return replace(step, program=program, entry=suffixed(step.entry, part))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
