"""``coexec train`` follows plans, from a file or made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.command import coexec as command
from tests.pipeline.small import parameters, write_data, write_network

BATCH = 8


def test_the_command_line_plans_and_trains(tmp_path: Path) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz")
    plan = tmp_path / "plan.onnx"
    common = ("--batch-size", str(BATCH), "--json")
    planned = command(
        *("plan", model, "--train", "--processors", "opencl,reference", "--budget", "0"),
        *("--policy", "heft", "--save", plan, *common),
    )
    assert planned.record["policy"] == "heft"
    training = ("train", model, "--data", data, "--epochs", "2", *common)
    one = command(*training, "-p", "reference", "--out", tmp_path / "one.onnx").record
    two = command(*training, "--plan", plan, "--out", tmp_path / "two.onnx").record
    assert two["plan"]["policy"] == "heft"
    assert two["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    for name, raw in parameters(tmp_path / "one.onnx").items():
        found = np.frombuffer(parameters(tmp_path / "two.onnx")[name], np.float32)
        np.testing.assert_allclose(found, np.frombuffer(raw, np.float32), rtol=1e-3, atol=1e-4)
    there = command(*training, "--processors", "opencl,reference", "--budget", "0").record
    assert there["plan"]["processors"]
    assert there["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    adapted = command(*training, "--processors", "opencl,reference", "--budget", "0", "--adapt")
    assert adapted.record["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    assert isinstance(adapted.record["adaptations"], list)
    assert "--adapt needs" in command(*training, "--adapt").error["error"]
    refused = command(*training, "--plan", plan, "-p", "reference")
    assert "give one of" in refused.error["error"]
