"""``docs/operators.md``, generated from the OpDefs: ``python -m coexec.report.operators FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from coexec.base.disk import write_atomically
from coexec.ops.opdef import OpDef
from coexec.ops.table import FAMILIES, OPERATORS

HEADER = """# Operators

Generated from the OpDefs by `make docs`; a test holds this page against the code.

{count} operators, {differentiable} of them differentiable. Each has a shape rule, a NumPy
reference, a count of its work (FLOP and bytes), a tolerance and examples; tests, autodiff and every
processor read these. *Body* means that the operator is also given as an ONNX function of
standard operators, so that a processor without a kernel of its own still runs it.

| operator | gradient | known before running | body | tolerance (float32) |
|---|---|---|---|---|
"""


def operators_page() -> str:
    """The page as Markdown."""
    differentiable = sum(op.gradient is not None for op in OPERATORS.values())
    header = HEADER.format(count=len(OPERATORS), differentiable=differentiable)
    rows: list[str] = []
    for family in FAMILIES:
        title = (family.__doc__ or "").strip().splitlines()[0].rstrip(".")
        rows.append(f"| **{title}** | | | | |")
        rows.extend(_row(op) for op in family.OPS)
    return header + "\n".join(rows) + "\n"


def _row(op: OpDef) -> str:
    gradient = "yes" if op.gradient is not None else f"no: {op.not_differentiable}"
    inputs = ", ".join(f"input {index}" for index in op.value_inputs)
    kinds = [word for word, is_so in (("view", op.view), ("random", op.random)) if is_so]
    name = f"`{op.identifier}`" + (f" ({', '.join(kinds)})" if kinds else "")
    tolerance = f"{op.tolerance.relative:g} rel, {op.tolerance.absolute:g} abs"
    body = "yes" if op.body is not None else ""
    return f"| {name} | {gradient} | {inputs} | {body} | {tolerance} |"


def main() -> None:
    """Write the page to the file named on the command line."""
    data = operators_page().encode()
    write_atomically(Path(sys.argv[1]), lambda file: file.write(data))


if __name__ == "__main__":
    main()
