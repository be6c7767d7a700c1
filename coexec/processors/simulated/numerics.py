"""Results of a simulated launch: the references of its operators, in order."""

from __future__ import annotations

import numpy as np

from coexec.core.types import Array, Region
from coexec.ops.table import opdef


def compute(region: Region, operands: dict[str, Array]) -> dict[str, Array]:
    """All tensors of a region by name, from its inputs; constants are added."""
    values = {**{name: np.asarray(value) for name, value in region.constants.items()}, **operands}
    # Infinities and NaN are results like any other here: whoever reads them decides.
    with np.errstate(all="ignore"):
        for node in region.nodes:
            read = [values[name] if name else None for name in node.inputs]
            results = opdef(node.call).reference(node.call, read)
            for name, kind, result in zip(node.outputs, node.call.outputs, results, strict=False):
                if name and kind is not None:
                    values[name] = np.asarray(result, kind.dtype).reshape(kind.shape)
    return values
