"""The rewrites of a region, in order."""

from __future__ import annotations

from collections.abc import Callable

from coexec.core.types import Region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.attention import fuse_attention
from coexec.processors.opencl.fusion.bias import fuse_bias
from coexec.processors.opencl.fusion.casts import batch_casts
from coexec.processors.opencl.fusion.compression import fuse_compression
from coexec.processors.opencl.fusion.dynamic_integers import fuse_dynamic
from coexec.processors.opencl.fusion.elementwise import fuse_elementwise
from coexec.processors.opencl.fusion.epilogue import fuse_epilogues
from coexec.processors.opencl.fusion.integers import fuse_integers
from coexec.processors.opencl.fusion.magnitudes import join_magnitudes
from coexec.processors.opencl.fusion.normalisation import fuse_normalisation
from coexec.processors.opencl.fusion.optimizer import batch_optimizer
from coexec.processors.opencl.fusion.pass_through import pass_through
from coexec.processors.opencl.fusion.unscaled import take_in_scales

Rewrite = Callable[[Region, DeviceFacts], Region]

REWRITES: tuple[Rewrite, ...] = (
    pass_through,
    fuse_integers,
    fuse_dynamic,
    fuse_attention,
    fuse_normalisation,
    fuse_compression,
    join_magnitudes,
    take_in_scales,
    fuse_bias,
    fuse_elementwise,
    fuse_epilogues,
    batch_optimizer,
    batch_casts,
)


def fuse(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with fewer nodes that compute the same inputs, outputs and states."""
    for rewrite in REWRITES:
        region = rewrite(region, facts)
    return region
