"""Training with compressed activations from the command line: what is told, refused and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.command import coexec, failed
from tests.pipeline.small import parameters, write_data, write_network


@pytest.fixture
def files(tmp_path: Path) -> tuple[str | Path, ...]:
    """``train MODEL --data DATA`` with batches whose hidden layer is worth compressing."""
    model = write_network(tmp_path / "model.onnx", dropout=True)
    data = write_data(tmp_path / "data.npz", 256)
    batches = ("--batch-size", "64", "-p", "reference")
    return ("train", model, "--data", data, *batches)


def test_what_is_kept_is_reported(files: tuple[str | Path, ...]) -> None:
    lossy = (*files, "--epochs", "1", "--activations", "int8")
    record = coexec(*lossy, "--json").record["activations"]
    assert record["kept"] == "int8"
    assert 0 < record["kept_bytes"] < 0.5 * record["full_bytes"]
    assert "of activations (int8) instead of" in coexec(*lossy).out
    full = coexec(*files, "--epochs", "1", "--json").record["activations"]
    assert full["kept_bytes"] == full["full_bytes"] == record["full_bytes"]


def test_an_unknown_way_is_refused(files: tuple[str | Path, ...]) -> None:
    message = failed(coexec(*files, "--activations", "int2"), 2)
    assert message.startswith("activations 'int2' are unknown; known: full, mask, bits, int8")


def test_a_resumed_training_is_the_same_bit_by_bit(
    files: tuple[str | Path, ...], tmp_path: Path
) -> None:
    def run(out: str, epochs: int, *more: str | Path) -> dict[str, bytes]:
        path = tmp_path / out
        done = coexec(
            *files, "--epochs", str(epochs), "--activations", "int4", *more, "--out", path
        )
        assert done.status == 0, done.err
        return parameters(path)

    folder = ("--checkpoint", tmp_path / "checkpoints")
    run("half.onnx", 1, *folder)
    assert run("resumed.onnx", 2, *folder, "--resume") == run("whole.onnx", 2)
    # Another way to round is another run; an exact one is not.
    refused = coexec(*files, "--epochs", "3", "--activations", "int8", *folder, "--resume")
    assert refused.status != 0
