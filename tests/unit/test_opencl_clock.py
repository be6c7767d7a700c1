"""Which times of a device are taken for its clock's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyopencl as cl
import pytest

from coexec.processors.opencl.clock import ROUNDS, clock_offset


def offset_of(ends: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The offset on a device whose commands end at these times, by a host of 10 ns a question."""
    hosts = itertools.count(1000, 10)
    monkeypatch.setattr("coexec.processors.opencl.clock.time.perf_counter_ns", hosts.__next__)

    def marker(_queue: Any) -> Any:
        return SimpleNamespace(profile=SimpleNamespace(end=next(ends)))

    monkeypatch.setattr(cl, "enqueue_marker", marker)
    return clock_offset(SimpleNamespace(), lambda _event: None)  # type: ignore[arg-type]


def test_the_least_difference_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [5, 8, 25, 34, 45]
    assert len(late) == ROUNDS
    assert offset_of(iter(late), monkeypatch) == 995


def test_a_clock_that_stands_still_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offset_of(itertools.repeat(3), monkeypatch) is None
