"""From a file or bytes to an ``onnx.ModelProto``, with a diagnosis where that fails."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import onnx

from coexec.base.errors import ModelError, UsageError

MAX_PROTOBUF_BYTES = 2**31 - 1
"""Protobuf's own limit; larger models keep their weights in external data."""

FOREIGN_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?): export it to ONNX first"),
    (0, b"\x89HDF\r\n", "an HDF5 file (a Keras model?): export it to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite model: convert it with tf2onnx first"),
    (4, b"ORTM", "an ONNX Runtime .ort file: use the .onnx file it was made from"),
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to get the file"),
    (0, b"\x1f\x8b", "gzip-compressed: uncompress it first"),
)
"""Offset, magic bytes and advice for files that people pass by mistake."""

LENGTH_DELIMITED = 2
MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Field number -> wire type of ``ModelProto``, to tell a truncated file from another format."""


@dataclass(frozen=True)
class Source:
    """A parsed model file. ``folder`` holds its external data (``None``: there is no folder)."""

    proto: onnx.ModelProto
    label: str
    folder: Path | None


def open_source(source: str | Path | bytes | onnx.ModelProto) -> Source:
    """Parse ``source``; ``ModelError`` says what is wrong with it."""
    if isinstance(source, onnx.ModelProto):
        return Source(source, "model", None)
    if isinstance(source, bytes):
        return Source(_parse(source, "the bytes given"), "the bytes given", None)
    if not isinstance(source, str | PathLike):
        raise UsageError(
            f"source is {source!r}; it has to be a path, the bytes of a file, or a model in memory"
        )
    path = Path(source)
    return Source(_parse(_read(path), str(path)), str(path), path.resolve().parent)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the path of an .onnx file")
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():  # a pipe or a device could block or never end
        raise ModelError(f"{path} is not a regular file")
    try:
        size = path.stat().st_size
        if size > MAX_PROTOBUF_BYTES:
            raise ModelError(
                f"{path} has {size} bytes, more than the 2 GiB a protobuf may have; "
                "save the model with its weights as external data"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _parse(data: bytes, label: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{label} is empty (0 bytes)")
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's own class differs by implementation
        raise ModelError(f"{label}: {_diagnose(data)}") from error
    if not proto.HasField("graph"):
        raise ModelError(f"{label}: {_diagnose(data)}")
    return proto


def _diagnose(data: bytes) -> str:
    for offset, magic, advice in FOREIGN_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return f"not an ONNX file but {advice}"
    missing = _missing_bytes(data)
    if missing:
        return f"truncated ONNX file: at least {missing} bytes are missing at its end"
    if _missing_bytes(data) == 0:
        return "damaged ONNX file: its protobuf cannot be decoded or holds no graph"
    return "not an ONNX file (it does not start like one)"


def _missing_bytes(data: bytes) -> int | None:
    """Bytes by which the last top-level field overruns the data; ``None``: no ModelProto at all."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if MODEL_FIELDS.get(tag >> 3) != tag & 7:
            return None if position <= 2 else 0
        length, position = _varint(data, position)
        if tag & 7 == LENGTH_DELIMITED:
            position += length
    return position - len(data)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Value and end of a base-128 number; it may run past the end by one where cut off."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
    return value, position + 1
