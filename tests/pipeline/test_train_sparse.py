"""``coexec train`` on a part of a model, with small states and with adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.pipeline.command import coexec, failed
from tests.pipeline.small import arrays, write_network

ON = ("--processor", "reference", "--batch-size", "12", "--epochs", "1", "--json")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    data = tmp_path / "train.npz"
    np.savez(data, **arrays(24))
    return write_network(tmp_path / "small.onnx"), data


def test_adapters_with_small_states_are_merged(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    out = tmp_path / "merged.onnx"
    coexec(
        *("train", model, "--data", data, *ON, "--lora", "2:fc1.*", "--out", out),
        *("--optimizer", "adam", "--optimizer-state", "8bit"),
    )
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for path in (model, out)
    )
    changed = {name for name, value in before.items() if not np.array_equal(after[name], value)}
    assert changed == {"fc1.weight", "bn.mean", "bn.var"}


def test_parameters_are_chosen_to_fit(files: tuple[Path, Path]) -> None:
    model, data = files
    done = coexec("train", model, "--data", data, *ON, "--trainable", "auto:1MiB")
    choice = done.record["choice"]
    assert choice["share"] == 1.0  # all of it fits
    assert choice["planned_bytes"] == done.record["peak_bytes"] <= 2**20
    refused = coexec("train", model, "--data", data, *ON, "--trainable", "auto:64B")
    assert "no parameter can be trained in 64 B" in refused.error["error"]


def test_unknown_states_are_refused(files: tuple[Path, Path]) -> None:
    model, data = files
    text = failed(coexec("train", model, "--data", data, "--optimizer-state", "4bit"), 2)
    assert text.startswith("--optimizer-state '4bit' is unknown; did you mean '8bit'?")
