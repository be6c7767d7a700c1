"""NPUs of which few networks were measured: what one element type tells of another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from coexec.core.soc_file import find_soc
from coexec.cost.calibration.fit import fit
from coexec.cost.calibration.known_networks import RESIDUAL, layers_of
from coexec.cost.calibration.mobile_networks import MOBILE
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.estimate import network_us
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.terms import TIED, terms

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

CHIP = "snapdragon-8-gen-3"
LAW = np.array([3.0, 0.5, 4.0, 1.5])
"""Arithmetic, traffic of activations, calls, weights: far from the limits' own proportions."""
SLOWER = {"int8": 1.0, "float16": 1.3}
NETWORKS = {
    **{name: make() for name, make in MOBILE.items()},
    **{name: layers_of(name, 224) for name in RESIDUAL},
}


def measured(model: str, precision: str) -> Sample:
    soc, calls = find_soc(CHIP), NETWORKS[model]
    limits = limits_of(soc, "npu", precision)
    row = np.sum([terms(call, limits, precision) for call in calls], axis=0)
    us = float(SLOWER[precision] * row @ TIED @ LAW)
    return Sample("made", model, soc, "npu", precision, "qnn", us, calls)


def error(fitted: Coefficients, models: Iterable[str]) -> float:
    """Mean relative error of networks in float16."""
    found = []
    for model in models:
        new = measured(model, "float16")
        guess = network_us(fitted, new.soc, "npu", "float16", "qnn", new.calls)
        found.append(abs(guess / new.measured_us - 1))
    return float(np.mean(found))


def test_an_element_type_with_few_networks_has_the_proportions_of_the_others() -> None:
    few = [measured(model, "float16") for model in ("ResNet18", "MnasNet")]
    others = NETWORKS.keys() - {sample.model for sample in few}
    together = fit([*few, *(measured(model, "int8") for model in NETWORKS)])
    assert error(together, others) < 0.15
    assert error(together, others) < 0.9 * error(fit(few), others)
