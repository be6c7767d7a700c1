"""Checkpoints: a training's whole state in one file, written atomically, checked when read.

A checkpoint is a NumPy ``.npz`` archive: one array per state tensor, and ``#header`` with the step,
a fingerprint of the training and a SHA-256 over all arrays. The newest two are kept, so that a
damaged one leaves another to go back to.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coexec.base.disk import write_atomically
from coexec.base.errors import CheckpointError, DataError, SaveError
from coexec.base.npz import read_npz
from coexec.core.types import Array

HEADER = "#header"
KEPT = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State after ``steps`` steps of the training that ``fingerprint`` identifies.

    ``progress`` is what the training loop wants back (epoch, losses so far).
    """

    state: Mapping[str, Array]
    steps: int
    fingerprint: str
    progress: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``checkpoint-<steps>.npz`` atomically, then drop all but the newest two.

    Raises:
        SaveError: the folder cannot be made or the file not be written; older ones are intact.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    header = {
        "steps": checkpoint.steps,
        "fingerprint": checkpoint.fingerprint,
        "progress": dict(checkpoint.progress),
        "digest": digest_of(checkpoint.state),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    arrays: dict[str, Any] = {HEADER: text, **checkpoint.state}
    path = folder / f"checkpoint-{checkpoint.steps:09d}.npz"
    write_atomically(path, lambda file: np.savez(file, **arrays))
    for old in _files(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: truncated, altered or not a checkpoint; the message names the file.
    """
    try:
        arrays = read_npz(path)
        header = json.loads(arrays.pop(HEADER).tobytes())
        if header["digest"] != digest_of(arrays):
            raise CheckpointError(f"checkpoint {path} is damaged: its digest does not match")
        return Checkpoint(arrays, header["steps"], header["fingerprint"], header["progress"])
    except (DataError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: {error}") from error


def latest_checkpoint(folder: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest readable checkpoint of a training, and what was refused on the way (in words).

    Raises:
        CheckpointError: the newest readable one belongs to another training.
    """
    refused: list[str] = []
    for path in reversed(_files(folder)):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if checkpoint.fingerprint != fingerprint:
            raise CheckpointError(
                f"checkpoint {path} belongs to another training (model, data, its order, loss, "
                "optimizer, precision or batch size differ); use another --checkpoint folder"
            )
        return checkpoint, refused
    return None, refused


def require_new(folder: Path) -> None:
    """Refuse a folder with checkpoints for a training that does not go on from them.

    Raises:
        CheckpointError: with how far they are. They would be mixed up with those of the new one.
    """
    found = _files(folder)
    if found:
        raise CheckpointError(
            f"{folder} has checkpoints up to {found[-1].name}: --resume goes on from there; for "
            "another training give another --checkpoint folder, or remove them"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.npz"))


def digest_of(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
