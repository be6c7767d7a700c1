"""Weights of large models lie in a file without a name instead of in memory.

Devices have copies of their own, so that the host's are read once, to fill those, and then only by
who asks for another program or for the model itself. Until then they need not be resident. The file
is coexec's own: the model's might be overwritten meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx_ir as ir

from coexec.base.errors import DeviceMemoryError
from coexec.base.knobs import cache_dir
from coexec.base.pages import give_back_heap, let_go
from coexec.core.pages import PageFile

LEAST_TENSOR_BYTES = 64 << 10
"""Of a tensor that goes to the file."""
LEAST_BYTES = 4 << 20
"""Of all of them together: less is not worth a file."""
ALIGNMENT = 64
"""Bytes, of the start of each tensor in the file."""

log = logging.getLogger(__name__)


def move_to_file(values: Sequence[ir.Value]) -> None:
    """Let the large arrays among the constants of ``values`` lie in a file; they stay equal.

    Where there is no room for one, they stay in memory, and the log says so.
    """
    large = [v for v in values if isinstance(v.const_value, ir.Tensor) and _size(v)]
    total = sum(_room(value) for value in large)
    if total < LEAST_BYTES:
        return
    try:
        file = PageFile(total, cache_dir() / "pages")
    except DeviceMemoryError as error:
        log.warning("weights stay in memory: %s", error)
        return
    place = 0
    for value in large:
        assert value.const_value is not None
        tensor = value.const_value
        array = tensor.numpy()
        kept = file.memory[place : place + array.nbytes].view(array.dtype).reshape(array.shape)
        kept[...] = array
        kept.flags.writeable = False
        value.const_value = ir.Tensor(kept, dtype=tensor.dtype, name=tensor.name)
        let_go(kept)
        place += _room(value)
        del array, tensor
    give_back_heap()


def _size(value: ir.Value) -> int:
    """Bytes of a constant if it is large, else 0."""
    nbytes = 0 if value.const_value is None else value.const_value.nbytes
    return nbytes if nbytes >= LEAST_TENSOR_BYTES else 0


def _room(value: ir.Value) -> int:
    """Bytes of a large constant in the file."""
    return -(-_size(value) // ALIGNMENT) * ALIGNMENT
