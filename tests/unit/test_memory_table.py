"""Tables of budgets in narrow terminals: lines may break, but nothing is cut."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from coexec.cli import memory_table
from coexec.cli.memory_table import show_forms, show_memory

RECORD: dict[str, Any] = {
    "budget_bytes": 1 << 27,
    "peak_bytes": 123_456_789,
    "plain_bytes": 223_456_789,
    "plain_predicted_ms": 50.0,
    "used": [
        {
            "technique": technique,
            "detail": detail,
            "exact": True,
            "saved_bytes": 99_999_999,
            "cost_ms": 5.0,
        }
        for technique, detail in (
            ("rematerialisation", "14 tensors"),
            ("compressed activations", "of Relu, dropout, pooling"),
        )
    ],
    "ran": {},
    "events": [],
    "refused": {},
}
FORMS = [
    {
        "form": "batch shares, nodes by auto",
        "recomputed": 14,
        "peak_bytes": 123_456_789,
        "step_ms": 123.4,
        "fits": fits,
    }
    for fits in (True, False)
]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_of_a_budget_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(memory_table, "console", Console(file=out, width=width))
    show_memory(RECORD)
    show_forms(FORMS, Console(file=out, width=width))
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = ("technique", "saves", "costs", "(predicted)", "recomputed", "memory", "ms a step")
    cells = ("95.4 MiB", "+10.0% time", "14 tensors", "117.7 MiB", "123.40", "does not fit")
    for whole in (*words, *cells):
        assert whole in text


def test_rows_are_single_lines_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(memory_table, "console", Console(file=out, width=100))
    show_memory(RECORD)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["rematerialisation", "14", "tensors", "exact", "95.4", "MiB", "+10.0%", "time"] in lines
