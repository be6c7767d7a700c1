"""Writing models as ONNX, atomically."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from coexec.base.disk import write_atomically


def save_model(model: ir.Model, path: Path) -> None:
    """Write ``model`` to ``path``; what stood there stays intact if anything fails.

    Raises:
        SaveError: the disk refused.
    """
    data = ir.to_proto(model).SerializeToString()
    write_atomically(path, lambda file: file.write(data))
