"""What may be folded once parameters no longer change: the list of passes that inference has."""

from __future__ import annotations

import onnx_ir as ir

from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.passes.fold_scale import fold_scale
from coexec.passes.share_constants import share_constants
from coexec.passes.turned_scatters import write_in_place
from coexec.passes.view_transposes import view_transposes


def fold_for_inference(model: ir.Model) -> int:
    """Fold what is constant in inference into its neighbours, for any processor; in place.

    ``model`` is specialised, with its parameters folded. Sessions, plans and the sizes of
    compressed models go through this list, so that all three have the same nodes. Returns how many
    nodes were folded. Results differ by rounding only.
    """
    share_constants(model.graph)
    write_in_place(model.graph)
    view_transposes(model.graph)
    return fold_batch_norm(model) + fold_scale(model)
