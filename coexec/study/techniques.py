"""What a study may do to a model before it is planned, by name: fewer weights, less work.

Studies are of times: what a technique does to accuracy is measured elsewhere, on trained models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from coexec.passes.low_rank import by_cost, factorise
from coexec.passes.prune_channels import prune_channels

Technique = Callable[[ir.Model], None]
"""Rewrites a model in place."""

NO_TECHNIQUE = "none"
HALF_THE_WEIGHTS = 0.5
CHANNELS_REMOVED = 0.3
CHANNELS_MULTIPLE = 4
"""Kernels of phones compute on vectors of four channels."""


def _as_it_is(_model: ir.Model) -> None:
    pass


def _low_rank(model: ir.Model) -> None:
    factorise(model, by_cost(HALF_THE_WEIGHTS))


def _pruned(model: ir.Model) -> None:
    prune_channels(model, CHANNELS_REMOVED, CHANNELS_MULTIPLE)


TECHNIQUES: Mapping[str, Technique] = {
    NO_TECHNIQUE: _as_it_is,
    "low-rank": _low_rank,
    "pruned": _pruned,
}
