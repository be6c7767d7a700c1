"""Timelines as text."""

from __future__ import annotations

from coexec.report.gantt import row


def test_a_row_is_full_where_it_is_busy() -> None:
    assert row([(0, 50)], 100, 10) == "█████     "
    assert row([(20, 30), (90, 100)], 100, 10) == "  █      █"
    assert row([], 100, 4) == row([(0, 1)], 0, 4) == "    "


def test_overlapping_spans_count_once() -> None:
    assert row([(0, 50), (0, 50)], 100, 10) == row([(0, 30), (20, 50)], 100, 10) == "█████     "
    assert row([(0, 5), (0, 5)], 100, 10) == "▒         "


def test_what_lasts_a_moment_stays_visible() -> None:
    assert row([(50, 50.01)], 100, 10) == "     ░    "
    assert row([(99.99, 100)], 100, 10) == "         ░"
