"""Detectors of phones' benchmarks: sizes, arithmetic and that other tools run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.published_networks import assert_runs_image_by_image, multiply_adds, parameters

PARAMETERS = {
    "nanodet_m": 950_000,  # RangiLyu's code
    "yolo_fastest_v2": 250_000,  # dog-qiuqiu's code, with fastest_det
    "fastest_det": 240_000,
    "ssdlite_mobilenet_v3_large": 3_440_060,  # torchvision
}
MACS = {
    "nanodet_m": 0.72e9 / 2,
    "yolo_fastest": 0.252e9 / 2,
    "yolo_fastest_v2": 0.212e9 / 2,
    "fastest_det": 0.252e9 / 2,
    "ssdlite_mobilenet_v2": 0.8e9,  # Sandler et al., 2018
    "ssdlite_mobilenet_v3_large": 0.583e9,  # torchvision
}
"""Multiply-adds of products for one image, by the same sources."""
TINY: dict[str, dict[str, Any]] = {
    "nanodet_m": {"image_size": 64},
    "yolo_fastest": {"image_size": 64},
    "yolo_fastest_v2": {"image_size": 64},
    "fastest_det": {"image_size": 64},
    "ssdlite_mobilenet_v2": {"image_size": 64},
    "ssdlite_mobilenet_v3_large": {"image_size": 64},
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_count_is_the_published_one(name: str, count: int) -> None:
    assert parameters(name) == pytest.approx(count, rel=0.02)


@pytest.mark.parametrize(("name", "macs"), MACS.items())
def test_arithmetic_is_the_published_one(name: str, macs: float) -> None:
    assert multiply_adds(name) == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize("name", TINY)
def test_network_runs_in_onnxruntime_image_by_image(name: str, rng: np.random.Generator) -> None:
    assert_runs_image_by_image(name, TINY[name], rng)
