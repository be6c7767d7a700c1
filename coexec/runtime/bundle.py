"""Bundles: a program with its weights in one file, runnable without ONNX.

A bundle is a zip archive: ``program.json`` and one ``.npy`` member per constant or initial state.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from coexec.base.disk import write_atomically
from coexec.base.errors import ModelError, ProcessorError
from coexec.base.npz import DAMAGED
from coexec.core import program as programs
from coexec.core.processor import Executable
from coexec.core.program import BufferSpec, Instruction, Program
from coexec.core.types import Array, TensorType

FORMAT = 3
INSTRUCTIONS: Mapping[str, Callable[..., Instruction]] = {
    cls.__name__: cls
    for cls in (programs.Write, programs.Read, programs.Launch, programs.Wait, programs.Free)
}
LoadExecutable = Callable[[Mapping[str, Any], Mapping[str, Array], str], Executable]


def save_bundle(program: Program, path: Path) -> None:
    """Write ``program`` to ``path`` atomically.

    Raises:
        ProcessorError: a part of the program runs on a processor whose executables cannot be saved.
    """
    records = []
    arrays: dict[str, Array] = {}
    for index, executable in enumerate(program.executables):
        try:
            record, constants = executable.to_json()
        except NotImplementedError as error:
            raise ProcessorError(
                f"the program cannot be saved: a part runs on {executable.processor!r} ({error})"
            ) from error
        records.append({"processor": executable.processor, **record})
        arrays.update({f"{index}/{name}": array for name, array in constants.items()})
    names = {name: f"array{number}" for number, name in enumerate(arrays)}
    document = {
        "format": FORMAT,
        "executables": records,
        "arrays": names,
        "buffers": [vars(spec) for spec in program.buffers],
        "instructions": [[type(step).__name__, vars(step)] for step in program.instructions],
        "inputs": program.inputs,
        "outputs": program.outputs,
        "state": program.state,
        "types": {n: [list(t.shape), t.dtype.name] for n, t in program.types.items()},
    }
    write_atomically(path, lambda file: _write_archive(file, document, arrays, names))


def load_bundle(path: Path, load_executable: LoadExecutable) -> Program:
    """Read a bundle; ``load_executable(record, arrays, processor)`` revives each executable.

    Raises:
        ModelError: not a bundle, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read("program.json"))
            if document["format"] != FORMAT:
                raise ModelError(f"{path}: bundle format {document['format']} is not {FORMAT}")
            arrays = {
                name: np.load(io.BytesIO(archive.read(f"{member}.npy")), allow_pickle=False)
                for name, member in document["arrays"].items()
            }
            return _program(document, arrays, load_executable)
    except (*DAMAGED, AttributeError) as error:
        raise ModelError(f"{path} is not a coexec bundle or is damaged: {error}") from error


def _program(
    document: Mapping[str, Any], arrays: Mapping[str, Array], load_executable: LoadExecutable
) -> Program:
    executables = []
    for index, record in enumerate(document["executables"]):
        prefix = f"{index}/"
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        executables.append(load_executable(record, own, record["processor"]))
    program = Program(
        instructions=tuple(_instruction(*step) for step in document["instructions"]),
        executables=tuple(executables),
        buffers=tuple(BufferSpec(**spec) for spec in document["buffers"]),
        inputs=tuple(document["inputs"]),
        outputs=tuple(document["outputs"]),
        state=tuple(document["state"]),
        types={
            name: TensorType(tuple(shape), np.dtype(dtype))
            for name, (shape, dtype) in document["types"].items()
        },
    )
    program.check()
    homes = {buffer.processor for buffer in program.buffers}
    if not homes <= {executable.processor for executable in program.executables}:
        raise ValueError("a buffer lives on a processor that executes nothing")
    return program


def _instruction(kind: str, fields: Mapping[str, Any]) -> Instruction:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return INSTRUCTIONS[kind](**values)


def _write_archive(
    file: BinaryIO,
    document: Mapping[str, Any],
    arrays: Mapping[str, Array],
    names: Mapping[str, str],
) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("program.json", json.dumps(document))
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(f"{names[name]}.npy", member.getvalue())
