"""Networks that make images, in parts: a part of :mod:`coexec.zoo.published`."""

from __future__ import annotations

from coexec.zoo import diffusion
from coexec.zoo.entry import ZooEntry

GENERATORS: dict[str, ZooEntry] = {
    "diffusion_text_encoder": ZooEntry(
        "text encoder of Stable Diffusion", (77,), diffusion.diffusion_text_encoder
    ),
    "diffusion_unet": ZooEntry("a step of Stable Diffusion", (75_840,), diffusion.diffusion_unet),
    "control_net": ZooEntry(
        "ControlNet beside Stable Diffusion", (862_272,), diffusion.control_net
    ),
    "diffusion_decoder": ZooEntry(
        "decoder of Stable Diffusion", (4, 64, 64), diffusion.diffusion_decoder
    ),
}
