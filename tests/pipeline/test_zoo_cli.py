"""``coexec zoo``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from coexec.zoo import CATALOG
from tests.pipeline.command import coexec, failed


def test_zoo_lists_and_writes(tmp_path: Path) -> None:
    models = coexec("zoo", "--json").record["models"]
    assert {"lenet5", "mlp", "resnet18", "mobilenetv2", "squeezenet", "gpt_tiny"} <= set(models)
    assert set(models["mlp"]) == {"description", "input_shape", "classes"}
    listed = coexec("zoo").out
    assert all(name in listed for name in models)
    out = tmp_path / "mlp.onnx"
    record = coexec("zoo", "mlp", "--out", out, "--batch", "3", "--classes", "7", "--json").record
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    assert record["name"] == "mlp"
    assert record["out"] == str(out)
    assert record["bytes"] == out.stat().st_size
    sizes = [np.prod(tensor.dims) for tensor in written.graph.initializer]
    assert record["parameters"] == sum(sizes)
    dims = [d.dim_value for d in written.graph.output[0].type.tensor_type.shape.dim]
    assert dims == [3, 7]


@pytest.mark.parametrize("rest", [(), ("--out", "x.onnx")])
def test_an_unknown_model_is_refused_in_a_line_that_names_close_ones(rest: tuple[str, ...]) -> None:
    text = failed(coexec("zoo", "resnet_18", *rest), 2)
    assert text.startswith("no model 'resnet_18' in the zoo; did you mean 'resnet18', ")
    assert text.endswith(f"? coexec zoo lists all {len(CATALOG)}")


def test_zoo_seed_decides_the_weights(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.onnx" for name in "abc"]
    for file, seed in zip(files, ("1", "1", "2"), strict=True):
        assert coexec("zoo", "digits_cnn", "--out", file, "--seed", seed).status == 0
    first, same, other = (file.read_bytes() for file in files)
    assert first == same != other
