"""Refusing arguments that make no sense, by their name and with what would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from coexec.base.errors import UsageError


def check_number(name: str, given: Any, below: float = math.inf) -> None:
    """Refuse what is no number from 0 to (not with) ``below``: texts, NaN, infinity too.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(given, Real) or not 0 <= float(given) < below:
        end = "" if math.isinf(below) else f" and below {below:g}"
        raise UsageError(f"{name} is {given!r}; it has to be a finite number of at least 0{end}")


def check_count(name: str, given: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(given, Integral) or given < least:
        raise UsageError(f"{name} is {given!r}; it has to be a whole number of at least {least}")


def check_texts(name: str, given: Any, example: str) -> None:
    """Refuse what is no sequence of texts; a text alone is none: it would be one of letters.

    Raises:
        UsageError: it is none.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    if not listed or not all(isinstance(item, str) for item in given):
        raise UsageError(f"{name} is {given!r}; it has to be a list of texts, such as {example}")
