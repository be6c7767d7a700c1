"""Libraries that only calibration needs, loaded when it begins: phones are simulated without."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from coexec.base.errors import UsageError


def library(name: str) -> Any:
    """A module of SciPy, scikit-learn or what comes with them.

    Raises:
        UsageError: it is not installed; the message says how to get it.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise UsageError("calibration needs scikit-learn: pip install 'coexec[plan]'")
    return importlib.import_module(name)
