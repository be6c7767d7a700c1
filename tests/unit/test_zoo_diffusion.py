"""Stable Diffusion in parts: sizes as published, names of parts, and that other tools run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coexec.cost.calibration.npu_names import network_named
from tests.published_networks import assert_runs_image_by_image, multiply_adds, parameters

PARTS = {
    ("stable_diffusion_v1_5", "TextEncoderQuantizable"): 123_060_480,
    ("stable_diffusion_v1_5_w8a16_quantized", "Unet_Quantized"): 859_520_964,
    ("stable-diffusion-v1-5", "vae"): 49_490_199,
    ("stable_diffusion_v2_1_quantized", "text_encoder"): 340_387_840,
    ("stable_diffusion_v2_1", "UnetQuantizable"): 865_910_724,
    ("stable_diffusion_v2_1", "VAEDecoder-Quantized"): 49_490_199,
    ("controlnet_quantized", "ControlNet-Quantized"): 361_279_120,
    ("controlnet_canny", "controlnet"): 361_279_120,
    ("riffusion", "UNet"): 859_520_964,
}
"""Parameters in Hugging Face's files of the parts' authors."""


@pytest.mark.parametrize(("part", "count"), PARTS.items(), ids=str)
def test_a_part_has_the_size_of_its_authors_file(part: tuple[str, str], count: int) -> None:
    network = network_named(*part)
    assert network is not None
    assert parameters(*network) == count


@pytest.mark.parametrize("part", ["", "Unet2", "VaeEncoder", "SafetyChecker"])
def test_other_parts_of_such_a_model_mean_nothing(part: str) -> None:
    assert network_named("stable_diffusion_v1_5", part) is None


@pytest.mark.parametrize(
    ("name", "macs"),
    # Kim et al., "BK-SDM", 2023
    {"diffusion_text_encoder": 6.5e9, "diffusion_decoder": 1240e9}.items(),
)
def test_arithmetic_of_a_part_is_the_published_one(name: str, macs: float) -> None:
    assert multiply_adds(name) == pytest.approx(macs, rel=0.03)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("diffusion_text_encoder", {"classes": 100, "depth": 2, "features": 128}),
        ("diffusion_text_encoder", {"classes": 100, "depth": 1, "features": 64, "second": True}),
        ("diffusion_unet", {"side": 8, "features": 32}),
        ("control_net", {"side": 8, "features": 32, "classes": 8}),
        ("diffusion_decoder", {"side": 4, "features": 32}),
    ],
    ids=str,
)
def test_part_runs_in_onnxruntime_image_by_image(
    name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    assert_runs_image_by_image(name, options, rng)
