"""Data files that are damaged, foreign or do not fit the model end in one clear message."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coexec.base.errors import CheckpointError, CoexecError, DataError
from coexec.base.npz import read_npy
from coexec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from coexec.training.data import load_npz
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import FEATURES, arrays, write_data, write_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def rows(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, r"missing \['x'\], unknown \[\]"),
        ({"labels": None}, r"has no array 'labels'; it has \['x'\]"),
        ({"extra": np.zeros(48)}, r"missing \[\], unknown \['extra'\]"),
        ({"x": rows(48, 7)}, "input 'x' wants shape Nx12, the data has 32x7"),
        ({"x": np.zeros((48, FEATURES), np.int32)}, "input 'x' wants float32, not int32"),
        ({"x": rows(47, FEATURES)}, "arrays differ in length"),
        ({"labels": np.array(3)}, r"\['labels'\] have no sample axis"),
        ({"labels": np.full(48, 9)}, "labels range from 9 to 9, but the model has 4 classes"),
        ({"labels": np.zeros((48, 2), int)}, "input 'labels' wants shape 32, the data has 32x2"),
        ({"x": rows(0, FEATURES), "labels": np.zeros(0, int)}, "the data has no samples"),
        ({"x": np.array([None] * 48)}, "it holds Python objects"),
    ],
)
def test_training_data_that_does_not_fit(
    changes: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "bad.npz", **changes)
    text = failed(command("train", model, "--data", data, "-p", "reference"))
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "No data left in file"),
        (b"this is no archive", "pickle"),
        (b"PK\x03\x04" + bytes(50), "not a zip file"),
        (b"\x93NUMPY\x01\x00", "EOF"),
    ],
)
def test_files_that_hold_no_arrays(
    content: bytes | None, reason: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    text = failed(command("train", model, "--data", path))
    assert text.startswith(f"{path} is not a readable .npz file: ")
    assert reason.lower() in text.lower()
    text = failed(command("run", model, "--input", f"x={path}"))
    assert text.startswith(f"--input x={path}: {path} is not a readable .npy file: ")
    assert reason.lower() in text.lower()


def test_one_array_for_an_archive_and_an_archive_for_one_array(
    model: Path, data: Path, tmp_path: Path
) -> None:
    single = tmp_path / "x.npy"
    np.save(single, rows(2, FEATURES))
    assert failed(command("train", model, "--data", single)) == (
        f"{single} is not a readable .npz file: it holds one bare array"
    )
    assert failed(command("run", model, "--input", f"x={data}")) == (
        f"--input x={data}: {data} is an archive; a .npy file with one array is wanted"
    )


def test_input_files_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, rows(2, 5))
    text = failed(command("run", model, "--input", f"x={file}"))
    assert text == "input 'x' is [N, 12], given 2x5: dimension 1 must be 12"
    np.save(file, np.zeros((2, FEATURES), np.int64))
    text = failed(command("run", model, "--input", f"x={file}", "-p", "reference"))
    assert text == "input 'x' wants float32, not int64; convert it first"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(len(changed)))
        match rng.integers(3):
            case 0:
                changed[position] = int(rng.integers(256))
            case 1:
                changed[position] ^= 1 << int(rng.integers(8))
            case _:
                del changed[max(position, 1) :]
    return bytes(changed)


def test_mutated_array_files_end_in_an_error_or_a_result(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    plain, packed, single = (tmp_path / name for name in ("plain", "packed", "single"))
    np.savez(plain.open("wb"), **arrays(6))
    np.savez_compressed(packed.open("wb"), **arrays(6))
    np.save(single.open("wb"), arrays(6)["x"])
    kept = save_checkpoint(tmp_path, Checkpoint({"w": np.arange(6.0)}, 3, "same", {}))
    readers: list[tuple[Path, Callable[[Path], object], type[CoexecError]]] = [
        (plain, load_npz, DataError),
        (packed, load_npz, DataError),
        (single, read_npy, DataError),
        (kept, load_checkpoint, CheckpointError),
    ]
    file = tmp_path / "mutated"
    for path, read, expected in readers:
        content = path.read_bytes()
        read(path)
        refused = 0
        for _ in range(400):
            file.write_bytes(mutated(content, rng))
            with contextlib.suppress(expected):
                read(file)
                continue
            refused += 1
        assert refused > 200
