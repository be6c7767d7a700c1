"""Runs the small convolutions of test_conv_gpu.py on oclgrind as a GPU would; prints how many.

A process of its own, as oclgrind reads its settings when it is loaded; what it finds goes to the
file that ``OCLGRIND_LOG`` names.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, variant_named
from coexec.processors.opencl.kernels.conv import FAMILY
from tests.conformance.test_conv_gpu import SMALL, assert_filtered, facts_of, run
from tests.running import assert_agrees, expected_outputs

RUNTIME = "opencl:oclgrind"


def main() -> None:
    rng = np.random.default_rng(0)
    facts = facts_of(RUNTIME)
    for name, (identifier, example) in SMALL.items():
        op, operands = OPERATORS[identifier], example.draw(rng)
        call = example.call(op, operands)
        expected = expected_outputs(op, call, operands)
        variant, reason = FAMILY.choose(call, facts)
        if name == "filtered":  # what is large enough for that by default takes too long here
            variant = variant_named(FAMILY, "winograd_items")
        assert variant is not None, reason
        choice = Choice(variant, variant.defaults(call, facts))
        actual = run(RUNTIME, call, operands, choice, facts)
        if name == "filtered":
            assert_filtered(actual[0], expected[0])
        else:
            assert_agrees(op, call, actual, expected)
    sys.stdout.write(str(len(SMALL)))
    sys.stdout.flush()
    # The report is complete; oclgrind's own clean-up at exit crashes now and then.
    os._exit(0)


if __name__ == "__main__":
    main()
