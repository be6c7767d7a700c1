"""Weights: check that a tensor's bytes are what it claims, and read them, external files too.

Everything is verified on the protobuf before an array is made, so that a hostile file can make
coexec neither allocate more than it brings nor read a file outside the model's folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.weights import move_to_file

MAX_TENSOR_BYTES = 2**40
"""Larger claims (1 TiB) are taken for corruption, not for a model."""

_T = onnx.TensorProto
_INT32_STORED = frozenset(
    {_T.INT32, _T.INT16, _T.INT8, _T.UINT16, _T.UINT8, _T.BOOL, _T.FLOAT16, _T.BFLOAT16}
    | {_T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ, _T.FLOAT8E8M0}
    | {_T.INT4, _T.UINT4, _T.FLOAT4E2M1}
    | {code for name in ("INT2", "UINT2") if (code := getattr(_T, name, None)) is not None}
)


def checked_size(dims: Iterable[int], itemsize: float, where: str) -> int:
    """Number of elements of a shape; ``ModelError`` if negative or absurdly large."""
    shape = tuple(dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"{where} has a negative dimension: {list(shape)}")
    size = math.prod(shape)
    if size * itemsize > MAX_TENSOR_BYTES:
        raise ModelError(f"{where} claims {size} elements {list(shape)}: more than 1 TiB")
    return size


def check_tensor(tensor: onnx.TensorProto, where: str, folder: Path | None) -> None:
    """``ModelError`` unless the element type is known and the data has the shape's size."""
    dtype = _element_type(tensor, where)
    size = checked_size(
        tensor.dims, dtype.bitwidth / 8 if dtype != ir.DataType.STRING else 1, where
    )
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is stored in segments, which coexec does not read")
    if tensor.data_location == _T.EXTERNAL:
        _check_external(tensor, where, folder, dtype)
    elif dtype == ir.DataType.STRING:
        _expect(len(tensor.string_data), size, "strings", where)
    elif tensor.HasField("raw_data"):
        _expect(len(tensor.raw_data), dtype_bytes(dtype, size), "bytes", where)
    else:
        _check_typed_field(tensor, dtype, size, where)


def dtype_bytes(dtype: ir.DataType, size: int) -> int:
    """Bytes of ``size`` elements as ONNX stores them (elements under 8 bits are packed)."""
    return math.ceil(dtype.bitwidth * size / 8)


def _element_type(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise ModelError(f"{where} has the unknown element type {tensor.data_type}") from error
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{where} has no element type")
    return dtype


def _expect(found: int, wanted: int, unit: str, where: str) -> None:
    if found != wanted:
        raise ModelError(f"{where} has {found} {unit} of data where its shape needs {wanted}")


def _check_typed_field(tensor: onnx.TensorProto, dtype: ir.DataType, size: int, where: str) -> None:
    code = tensor.data_type
    if code in _INT32_STORED:
        found, size = len(tensor.int32_data), _int32_count(dtype, size)
    elif code in (_T.FLOAT, _T.COMPLEX64):
        found, size = len(tensor.float_data), size * (2 if code == _T.COMPLEX64 else 1)
    elif code in (_T.DOUBLE, _T.COMPLEX128):
        found, size = len(tensor.double_data), size * (2 if code == _T.COMPLEX128 else 1)
    elif code == _T.INT64:
        found = len(tensor.int64_data)
    elif code in (_T.UINT32, _T.UINT64):
        found = len(tensor.uint64_data)
    else:
        raise ModelError(f"{where}: {dtype.name} data must be stored as raw bytes")
    _expect(found, size, "numbers", where)


def _int32_count(dtype: ir.DataType, size: int) -> int:
    """Entries of ``int32_data``: one an element, or one for each packed byte."""
    return dtype_bytes(dtype, size) if dtype.bitwidth < 8 else size


def _check_external(
    tensor: onnx.TensorProto, where: str, folder: Path | None, dtype: ir.DataType
) -> None:
    path, offset, length = external_span(tensor, where, folder, dtype)
    available = path.stat().st_size
    if offset + length > available:
        raise ModelError(
            f"{where} needs bytes {offset} to {offset + length} of its external data "
            f"{path.name}, which has only {available}"
        )


def external_span(
    tensor: onnx.TensorProto, where: str, folder: Path | None, dtype: ir.DataType
) -> tuple[Path, int, int]:
    """File, offset and length of external data; ``ModelError`` if unsafe, missing or too short."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = safe_path(location, where, folder)
    needed = dtype_bytes(dtype, math.prod(tensor.dims))
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries.get("length", str(needed)), "length", where)
    _expect(length, needed, "bytes", where)
    return path, offset, length


def safe_path(location: str, where: str, folder: Path | None) -> Path:
    """The external file inside ``folder``; anything that leaves the folder is refused.

    Absolute paths (POSIX or Windows), ``..`` and symbolic links to elsewhere would let a model
    read any file of its user.
    """
    if folder is None:
        raise ModelError(f"{where} is external data, but a model without a file has no folder")
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or absolute or ".." in parts:
        raise ModelError(f"{where}: unsafe external data path {location!r}; refused")
    path = (folder / location).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{where}: external data path {location!r} leaves the model's folder; refused"
        )
    if not path.is_file():
        raise ModelError(f"{where}: its external data file {location!r} is missing")
    return path


def _number(text: str, key: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{where}: external data {key} {text!r} is not a number of bytes")
    return int(text)


def own_tensors(model: ir.Model, folder: Path | None) -> None:
    """Turn every tensor of ``model`` into an array of its own, external data read from ``folder``.

    A tensor that still pointed to its protobuf would keep the whole file's bytes alive, and one
    mapped from the model's file would change or crash when that is overwritten. The weights of a
    large model go to a file of coexec's own (``weights.py``).
    """
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    for value in values:
        if value.const_value is not None:
            value.const_value = _owned(value.const_value, folder)
    move_to_file(values)
    for node in all_nodes(model):
        for name, attribute in list(node.attributes.items()):
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, _owned(attribute.value, folder))


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes of the graph, its subgraphs and the functions."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _owned(tensor: ir.TensorProtocol, folder: Path | None) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING or isinstance(tensor, ir.Tensor):
        return tensor
    if isinstance(tensor, ir.ExternalTensor):
        tensor = _read_external(tensor, folder)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _read_external(tensor: ir.ExternalTensor, folder: Path | None) -> ir.TensorProtocol:
    """The bytes as a tensor in memory; the file was checked, but may have changed since."""
    where = f"initializer {tensor.name!r}"
    path = safe_path(str(tensor.location), where, folder)
    shape = tuple(tensor.shape.numpy())
    count = dtype_bytes(tensor.dtype, math.prod(shape))
    raw = np.fromfile(path, np.uint8, count, offset=tensor.offset or 0)
    _expect(raw.size, count, "bytes", where)
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(raw, tensor.dtype, shape=ir.Shape(shape), name=tensor.name)
    array = raw.view(np.dtype(tensor.dtype.numpy()).newbyteorder("<")).reshape(shape)
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
