"""Runs small examples of every operator on Mesa's Rusticl as a GPU would; prints JSON.

A process of its own: the driver reads ``RUSTICL_ENABLE`` when it is loaded, brings another LLVM,
and ends the process where its compiler gives up. The case that it was at is the last line of
standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import numpy as np

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import Example, OpDef, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.table import FAMILIES
from tests.running import assert_agrees, expected_outputs, run_call

SPEC = "opencl:rusticl?unit=gpu"
LEFT_OUT = {
    "coexec::JointNormalization": "refused by GPUs: it waits for other processors (and llvmpipe of "
    "Mesa 22.3 goes on with a loop that ends when memory changes for lanes that no item has, in "
    "groups of less than 8 items; after 65,536 rounds every loop behind it ends after one)",
    "coexec::JointNormalizationGrad": "the same",
}
"""Operators that are not run, with the reason."""
LONG = Example((Sample((128, 2, 256)), Sample((1, 256, 64), low=-0.1, high=0.1)), {}, 3)
"""Steps of an LSTM that one item does not take to their end: llvmpipe leaves long loops."""


def main() -> None:
    """Run every case; the names of those that differ, with how."""
    processor = open_processor(SPEC)
    findings: dict[str, str] = {}
    families: dict[str, int] = {}
    for family, name, op, call, operands in cases(processor.facts):  # type: ignore[attr-defined]
        sys.stderr.write(f"{name}\n")
        sys.stderr.flush()
        families[family] = families.get(family, 0) + 1
        try:
            actual = run_call(processor, call, operands)
            assert_agrees(op, call, actual, expected_outputs(op, call, operands))
        except AssertionError as error:
            findings[name] = str(error)
    sys.stdout.write(json.dumps({"families": families, "findings": findings}))
    sys.stdout.flush()
    # The report is complete; threads of two LLVMs end the process in an order of their own.
    os._exit(0)


def cases(facts: DeviceFacts) -> Iterator[tuple[str, str, OpDef, OpCall, list[Array | None]]]:
    """The smallest example of an operator for each variant that a GPU gets by default."""
    rng = np.random.default_rng(1)
    for family in FAMILIES:
        for identifier in sorted(set(family.operators) - LEFT_OUT.keys()):
            op = OPERATORS[identifier]
            drawn = [(example, example.draw(rng)) for example in op.examples]
            drawn.sort(key=lambda pair: sum(o.size for o in pair[1] if o is not None))
            seen = set()
            for example, operands in drawn:
                call = example.call(op, operands)
                variant, _reason = family.choose(call, facts)
                if variant is not None and variant.name not in seen:
                    seen.add(variant.name)
                    name = f"{family.name}: {identifier} by {variant.name}"
                    yield family.name, name, op, call, operands
    long, op = LONG, OPERATORS["coexec::LSTMSteps"]
    operands = long.draw(rng)
    yield "recurrent", "recurrent: 128 steps", op, long.call(op, operands), operands


if __name__ == "__main__":
    main()
