"""docs/operators.md is what the OpDefs say."""

from __future__ import annotations

from pathlib import Path

from coexec.report.operators import operators_page

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == operators_page(), "docs/operators.md is stale: run `make docs`"
