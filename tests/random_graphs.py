"""Random graphs of operators on vectors, whose results do not depend on who computes them."""

from __future__ import annotations

import random

import onnx_ir as ir

from coexec.frontend import load
from tests.graphs import parse

OPERATORS = (("Relu", 1), ("Neg", 1), ("Add", 2), ("Sub", 2), ("Max", 2))
"""With the number of operands; exact, to the bit."""


def random_model(dice: random.Random, size: int = 5) -> ir.Model:
    """Up to 14 nodes on vectors, any of them read again later; some results are outputs."""
    names, nodes = ["a", "b"], []
    for index in range(dice.randint(2, 14)):
        operator, operands = dice.choice(OPERATORS)
        read = ", ".join(dice.choice(names) for _ in range(operands))
        nodes.append(f"[n{index}] t{index} = {operator}({read})")
        names.append(f"t{index}")
    made = names[2:]
    outputs = dict.fromkeys([made[-1], *dice.sample(made, min(3, len(made)))])
    kind = f"float[{size}]"
    declared = ", ".join(f"{kind} {name}" for name in outputs)
    return load(parse(f"g ({kind} a, {kind} b) => ({declared}) {{ {' '.join(nodes)} }}"), {})
