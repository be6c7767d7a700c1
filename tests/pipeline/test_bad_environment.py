"""Processors that are not there and disks that are full end in one clear message."""

from __future__ import annotations

import errno
import importlib
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyopencl as cl
import pytest

import coexec
from coexec.base.disk import write_atomically
from coexec.base.errors import CoexecError, ProcessorError, SaveError
from coexec.core.events import Event, Trace
from coexec.processors import find
from coexec.processors.opencl import discover, runtimes
from coexec.report.perfetto_trace import write_perfetto
from coexec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed, finish, python, start
from tests.pipeline.small import FEATURES, network, write_data, write_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def trainer(processor: str = "reference", **options: Any) -> coexec.Trainer:
    return coexec.Trainer(
        coexec.load(network()),
        options.pop("loss", coexec.losses.SoftmaxCrossEntropy()),
        options.pop("optimizer", coexec.optim.SGD(0.1)),
        [processor],
        **options,
    )


# Processors


def test_unknown_processors_list_the_known_ones(model: Path) -> None:
    shape = ("--shape", f"x=2x{FEATURES}")
    for spec in ("tpu", "OpenCL", "opencl:nonsense", "opencl:pocl:77"):
        text = failed(command("run", model, *shape, "-p", spec))
        assert repr(spec) in text
        assert re.search(r"known( on this machine)?: .*opencl:", text)
    with pytest.raises(ProcessorError, match=r"processor 'reference.*cores"):
        coexec.compile(coexec.load(network()), ["reference?cores=1"])
    with pytest.raises(
        CoexecError,
        match=re.escape("processors is 'opencl'; it has to be a list of texts, such as ['opencl']"),
    ):
        coexec.compile(coexec.load(network()), "opencl")


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyOpenCL does where the loader finds no driver."""

    def get_platforms() -> list[cl.Platform]:
        raise cl.LogicError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    monkeypatch.setattr(discover, "devices", discover.devices.__wrapped__)
    monkeypatch.setattr("coexec.processors.opencl.plugin.devices", discover.devices)
    monkeypatch.setattr(find, "open_processor", find.open_processor.__wrapped__)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("spec", ["opencl", "opencl:pocl"])
def test_no_opencl_runtime_says_what_to_install(model: Path, spec: str) -> None:
    text = failed(command("run", model, "--shape", f"x=2x{FEATURES}", "-p", spec))
    assert text.startswith(
        "no OpenCL runtime on this machine: pip install pocl-binary-distribution"
    )
    for hint in ("driver of your GPU", "pocl-opencl-icd", "docs/android.md"):
        assert hint in text


@pytest.mark.usefixtures("no_runtime")
def test_without_opencl_the_reference_still_runs(model: Path) -> None:
    shape = ("--shape", f"x=2x{FEATURES}", "--json")
    assert command("run", model, *shape, "-p", "reference").record["processor"] == "reference"
    records = command("devices", "--json").record["processors"]
    found = {r["name"]: r for r in records if not r["name"].startswith(("ort:", "sim"))}
    assert {name: r["available"] for name, r in found.items()} == {
        "opencl": False,
        "reference": True,
    }
    assert "no OpenCL runtime" in found["opencl"]["reason"]


def test_a_loader_that_fails_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_platforms() -> list[cl.Platform]:
        raise cl.LogicError("clGetPlatformIDs failed: OUT_OF_HOST_MEMORY")

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    with pytest.raises(ProcessorError, match=r"the OpenCL loader failed: .*OUT_OF_HOST_MEMORY"):
        discover.devices.__wrapped__()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, os.strerror(errno.EROFS)),  # PyOpenCL makes a folder in the home
        ModuleNotFoundError("No module named 'pyopencl'", name="pyopencl"),
    ],
    ids=["read-only home", "not installed"],
)
def test_a_library_that_cannot_be_imported_is_a_reason(
    error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == find.PLUGINS["opencl"]:
            raise error
        return whole(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    shape = ("--shape", f"x=2x{FEATURES}")
    # No other test opens this one: what is open stays so, whatever becomes of its library.
    text = failed(command("run", model, *shape, "-p", "opencl:pocl:77"))
    assert text.startswith("opencl: its library cannot be imported (")
    assert (error.args[-1]) in text
    assert "XDG_CACHE_HOME" in text
    records = command("devices", "--json").record["processors"]
    (opencl,) = (record for record in records if record["name"].startswith("opencl"))
    assert opencl["reason"] == text
    assert command("run", model, *shape, "-p", "reference").status == 0


def test_a_mistake_of_our_own_in_a_plug_in_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str, package: str | None = None) -> Any:
        raise ImportError("cannot import name 'x' from 'coexec.y'", name="coexec.y")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ImportError, match=re.escape("coexec.y")):
        find.list_processors()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drivers are gathered on Linux")
def test_no_folder_at_all_for_the_drivers_files(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(model / "cache"))  # below a file
    monkeypatch.setattr(tempfile, "tempdir", str(model / "temporary"))
    monkeypatch.delenv("OCL_ICD_VENDORS", raising=False)
    with pytest.raises(SaveError) as caught:
        runtimes.prepare_loader.__wrapped__()
    assert str(model / "temporary") in str(caught.value)
    assert str(caught.value).endswith("name one that can be written in COEXEC_CACHE_DIR")


# Disks

Save = Callable[[Path], object]
SAVES: dict[str, Save] = {
    "file": lambda path: write_atomically(path, lambda file: file.write(b"new")),
    "trained model": lambda path: trainer().save(path),
    "bundle": lambda path: _session().save(path),
    "trace": lambda path: write_perfetto(Trace([Event("e", "launch", "cpu", 1, 2)]), path),
}


def _session() -> coexec.session.Session:
    return coexec.compile(coexec.load(network(), {"x": (2, FEATURES)}), ["opencl"])


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("what", SAVES)
def test_a_full_disk_leaves_the_old_file(
    what: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, no_space)
        with pytest.raises(SaveError) as caught:
            SAVES[what](path)
    assert str(caught.value) == (
        f"cannot write {path}: No space left on device; the previous file, if any, is intact"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    SAVES[what](path)  # with space again it is written
    assert path.read_bytes() != b"old"


def test_a_full_disk_keeps_older_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checkpoint(steps: int) -> Checkpoint:
        return Checkpoint({"w": np.full(5, steps)}, steps, "same", {})

    kept = save_checkpoint(tmp_path, checkpoint(1))

    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SaveError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert list(tmp_path.iterdir()) == [kept]
    assert load_checkpoint(kept).state["w"].tolist() == [1] * 5


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
from coexec.cli import main
sys.argv = ["coexec", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file sizes here")
def test_training_onto_a_disk_that_fills_up(model: Path, data: Path, tmp_path: Path) -> None:
    """The operating system itself refuses to write more than 1,500 bytes into a file."""
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    arguments = ("train", model, "--data", data, "--epochs", "1", "--out", out, "-p", "reference")
    text = failed(python(LIMITED, arguments))
    assert text == f"cannot write {out}: File too large; the previous file, if any, is intact"
    assert out.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == sorted([model, data, out])


def test_a_terminal_of_another_encoding_shows_what_it_can(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves and names that it lacks are question marks, not the end of the training."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    monkeypatch.setenv("PYTHONUTF8", "0")
    flags = ("--data", data, "--epochs", "1", "--batch-size", "8", "-p", "reference")
    done = finish(start("train", model, *flags))
    assert (done.status, "Traceback" in done.err) == (0, False)
    assert done.out.startswith("loss      ?")


def test_a_process_of_its_own_exits_with_the_status(tmp_path: Path) -> None:
    """No traceback on a terminal either, and none of the interpreter's own exit codes."""
    done = finish(start("run", tmp_path / "none.onnx"))
    assert failed(done) == f"{tmp_path / 'none.onnx'}: no such file"
    assert sys.exc_info() == (None, None, None)
