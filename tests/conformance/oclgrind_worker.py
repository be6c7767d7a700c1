"""Runs the small examples of one kernel family on oclgrind; prints what it found as JSON.

A process of its own: oclgrind reads its settings when it is loaded, and its findings go to the file
that ``OCLGRIND_LOG`` names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import OpDef
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import KernelFamily
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import FAMILIES
from tests.running import assert_close, run_region

LARGEST = 600
"""Elements of all operands together: oclgrind interprets every instruction."""
PER_VARIANT = 2
"""Examples per operator and variant."""


def main() -> None:
    """Check the family named on the command line."""
    family = next(f for f in FAMILIES if f.name == sys.argv[1])
    processor = open_processor("opencl:oclgrind")
    assert isinstance(processor, OpenCLProcessor)
    log = Path(os.environ["OCLGRIND_LOG"])
    findings: dict[str, str] = {}
    ran = 0
    for name, op, call, operands, variant in cases(family, processor):
        before = _size(log)
        try:
            _run(processor, op, call, operands, variant)
        except AssertionError as error:
            findings[name] = str(error)
        text = log.read_text()[before:] if _size(log) > before else ""
        if text.strip():
            findings[name] = text[:2000]
        ran += 1
    sys.stdout.write(json.dumps({"ran": ran, "findings": findings}))
    sys.stdout.flush()
    # The report is complete; oclgrind's own clean-up at exit crashes now and then.
    os._exit(0)


def cases(
    family: KernelFamily, processor: OpenCLProcessor
) -> Iterator[tuple[str, OpDef, OpCall, list[Array | None], str]]:
    """The smallest examples that each variant of each operator takes."""
    rng = np.random.default_rng(1)
    for identifier in family.operators:
        op = OPERATORS[identifier]
        drawn = [(example, example.draw(rng)) for example in op.examples]
        drawn.sort(key=lambda pair: _elements(pair[1]))
        for variant in family.variants:
            taken = 0
            for number, (example, operands) in enumerate(drawn):
                call = example.call(op, operands)
                small = _elements(operands) + sum(o.size for o in call.outputs if o) <= LARGEST
                if taken == PER_VARIANT or not small:
                    break
                if variant.applies(call, processor.facts) is None:
                    taken += 1
                    yield f"{identifier}-{variant.name}-{number}", op, call, operands, variant.name


def _run(
    processor: OpenCLProcessor, op: OpDef, call: OpCall, operands: list[Array | None], variant: str
) -> None:
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, processor.name, variant)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    results = run_region(processor, region, executable, values)
    for actual, expected in zip(results, op.reference(call, operands), strict=False):
        assert_close(actual, np.asarray(expected), op.tolerance.relative, op.tolerance.absolute)


def _elements(operands: list[Array | None]) -> int:
    return sum(o.size for o in operands if o is not None)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


if __name__ == "__main__":
    main()
