"""Measurements that nothing is fitted to, beside what a phone's figures predict for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from coexec.cost.calibration.left_out import LeftOut, reasons


@dataclass(frozen=True)
class Check:
    """Errors of one kind of rows of a file, or (no rows) the reason why there is none.

    Shares are parts of 1; ``mape`` is the mean absolute relative error, ``bias`` the median of
    predicted over measured, less 1. ``note`` says what was compared, or why not.
    """

    file: str
    what: str
    note: str
    rows: int = 0
    mape: float = float("nan")
    bias: float = float("nan")
    within_10: float = float("nan")
    within_20: float = float("nan")


def checked(file: str, what: str, note: str, pairs: Sequence[tuple[float, float]]) -> Check:
    """A check of pairs of measured and predicted numbers of one unit."""
    if not pairs:
        return Check(file, what, "no such rows")
    measured, predicted = np.array(pairs).T
    errors = predicted / measured - 1
    size = np.abs(errors)
    return Check(
        file,
        what,
        note,
        len(pairs),
        float(size.mean()),
        float(np.median(errors)),
        float((size <= 0.1).mean()),
        float((size <= 0.2).mean()),
    )


def left_out_checks(rows: Iterable[LeftOut]) -> list[Check]:
    """Rows that nothing is predicted for, by file and reason."""
    return [Check(each.file, f"{each.rows:,} rows", each.note()) for each in reasons(rows)]
