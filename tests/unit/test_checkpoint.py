"""What a checkpoint's digest tells apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coexec.base.errors import CheckpointError
from coexec.core.types import Array
from coexec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((2, 3), np.float32)}


def renamed(state: dict[str, Array]) -> dict[str, Array]:
    return {"v" if name == "w" else name: array for name, array in state.items()}


def reshaped(state: dict[str, Array]) -> dict[str, Array]:
    return {**state, "w": state["w"].reshape(3, 2)}


def reinterpreted(state: dict[str, Array]) -> dict[str, Array]:
    return {**state, "w": state["w"].view(np.int32)}


def more(state: dict[str, Array]) -> dict[str, Array]:
    return {**state, "none": np.zeros(0, np.float32)}


@pytest.mark.parametrize("altered", [renamed, reshaped, reinterpreted, more])
def test_the_same_bytes_as_another_state_are_refused(
    altered: Callable[[dict[str, Array]], dict[str, Array]], tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(STATE, 3, "a", {}))
    found = load_checkpoint(path)
    assert found.steps == 3
    assert all(np.array_equal(found.state[name], array) for name, array in STATE.items())
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    np.savez(path, allow_pickle=False, **altered(content))
    with pytest.raises(CheckpointError, match="is damaged: its digest does not match"):
        load_checkpoint(path)
