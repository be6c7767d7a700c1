"""docs/operators.md is what the OpDefs say."""

from __future__ import annotations

from pathlib import Path

from coexec.ops.table import OPERATORS
from coexec.report.operators import operators_page

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == operators_page(), "docs/operators.md is stale: run `make docs`"


def test_readme_counts_the_operators() -> None:
    differentiable = sum(op.gradient is not None for op in OPERATORS.values())
    readme = (PAGE.parents[1] / "README.md").read_text()
    assert f"{len(OPERATORS)} operators, {differentiable} of them differentiable" in readme
