"""A round: cases of a suite that belong together, though several runs may have measured them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Round:
    """Cases dated ``began`` or later belong to it; ``done`` are the names of those there are."""

    began: str
    done: frozenset[str] = frozenset()


def round_of(suite: Record | None, now: str) -> Round:
    """The last round of a suite's record, to be gone on with; where there is none, one from now."""
    if suite is None or "began" not in suite:
        return Round(now)
    began = suite["began"]
    cases = suite["cases"]
    return Round(began, frozenset(case["name"] for case in cases if case["date"] >= began))
