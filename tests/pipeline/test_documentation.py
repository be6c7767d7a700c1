"""Code in README.md and docs/ runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.frontend.export import save_model
from coexec.zoo.catalog import build

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of a page."""
    return [code for kind, code in FENCE.findall(page.read_text()) if kind == language]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture
def desk(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    save_model(build("lenet5", batch=None), tmp_path / "model.onnx")
    save_model(build("digits_cnn", batch=None), tmp_path / "digits.onnx")
    for name, samples in (("train", 64), ("validation", 32)):
        arrays: Mapping[str, Any] = {
            "x": rng.standard_normal((samples, 1, 8, 8)).astype(np.float32),
            "labels": rng.integers(0, 10, samples),
        }
        np.savez(tmp_path / f"{name}.npz", **arrays)
    return tmp_path


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, desk: Path, rng: np.random.Generator) -> None:
    shape = (32, 1, 28, 28) if page.name == "README.md" else (1, 1, 8, 8)
    names: dict[str, Any] = {
        "coexec": coexec,
        "x": rng.standard_normal(shape).astype(np.float32),
        "labels": rng.integers(0, 10, shape[0]),
    }
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)
    assert np.isfinite(names["y"]).all()
    if page.name == "README.md":
        assert names["loss"] > 0
        assert (desk / "trained.onnx").exists()


def test_readme_commands_run(desk: Path) -> None:
    lines = "\n".join(blocks(ROOT / "README.md", "sh")).replace("\\\n", " ").splitlines()
    commands = [line.split("#")[0].strip() for line in lines if "coexec " in line.split("#")[0]]
    assert len(commands) >= 5
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, shell=True, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (desk / "trained.onnx").exists()
