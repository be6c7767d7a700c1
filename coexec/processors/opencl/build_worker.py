"""The process that ``build_apart.py`` starts: sources from the standard input into the cache."""

from __future__ import annotations

import json
import sys

import pyopencl as cl

from coexec.processors.opencl.build_apart import BUILT
from coexec.processors.opencl.discover import choose_device
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.programs import ProgramCache


def main() -> None:
    """Build the programs of the standard input for the device that the command line names."""
    _, device = choose_device(sys.argv[1])
    sources = tuple(ProgramSource(family, text) for family, text in json.load(sys.stdin))
    cache = ProgramCache(cl.Context([device]), device, apart=False)
    cache.build(sources)
    sys.stdout.write(f"{BUILT}\n")
    sys.stdout.flush()
    cache.slim(sources)
