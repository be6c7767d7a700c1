"""Source text of programs: a family's file with its includes, and defines in front of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.family import KernelCall

INCLUDE = re.compile(r'^#include "(\w+)\.cl"$', re.MULTILINE)
PRAGMAS = {
    "half": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable",
    "double": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable",
}
NAMES = {"half": "float16", "double": "float64"}


def program_text(call: KernelCall) -> str:
    """Defines in front of the family's source."""
    defines = [f"#define {name} {value}" for name, value in sorted(call.defines.items())]
    values = " ".join(map(str, call.defines.values()))
    pragmas = [pragma for word, pragma in PRAGMAS.items() if word in values]
    return "\n".join((*pragmas, *defines, kernel_source(call.family)))


def check_types(device: cl.Device, sources: Iterable[ProgramSource]) -> None:
    """Refuse programs with an element type that a device lacks: bundles are made for another one.

    Raises:
        ProcessorError: with the type; a compiler would name each line of them.
    """
    texts = [source.text for source in sources]
    for dtype, pragma in PRAGMAS.items():
        extension = pragma.split()[3]
        if any(pragma in text for text in texts) and extension not in device.extensions.split():
            raise ProcessorError(
                f"{device.name.strip()}: the program was made for a device that computes in "
                f"{NAMES[dtype]} ({extension}); save it again for this one"
            )


@cache
def kernel_source(family: str) -> str:
    """Text of ``kernels/<family>.cl`` with the files that it includes in their places.

    Drivers cannot be told of a folder inside a package, and a bundle has no folder at all.
    """
    package = resources.files("coexec.processors.opencl.kernels")
    text = (package / f"{family}.cl").read_text()
    return INCLUDE.sub(lambda match: kernel_source(match.group(1)), text)
