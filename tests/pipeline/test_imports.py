"""``import coexec`` is fast and pulls in nothing heavy; names arrive when they are first used."""

from __future__ import annotations

import json

import pytest

import coexec
from tests.pipeline.command import python

SECONDS = 0.3
TRIES = 5
TIMED = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import coexec
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def test_import_is_fast_and_light() -> None:
    """The best of a few fresh processes: others use this machine too."""
    runs = []
    for _ in range(TRIES):
        runs.append(json.loads(python(TIMED).out))
        if runs[-1]["seconds"] < SECONDS:
            break
    assert min(run["seconds"] for run in runs) < SECONDS
    loaded = {name.partition(".")[0] for name in runs[0]["modules"]}
    heavy = {"numpy", "onnx", "onnx_ir", "onnxscript", "pyopencl", "typer", "rich", "perfetto"}
    assert "coexec" in loaded
    assert not loaded & heavy
    assert runs[0]["modules"].count("coexec") == 1
    own = [name for name in runs[0]["modules"] if name.startswith("coexec.")]
    assert own == ["coexec.base", "coexec.base.collection", "coexec.base.postponed"]


def test_symbolic_arithmetic_is_loaded_when_it_is_used() -> None:
    """ONNX IR would import it at once, half of its own start."""
    done = python(
        "import sys, coexec; assert coexec.Trainer\n"
        "print('sympy.core' in sys.modules)\n"
        "import onnx_ir\n"
        "print((onnx_ir.SymbolicDim('N') + 1).value, 'sympy.core' in sys.modules)"
    )
    assert done.out == "False\nN + 1 True\n"


def test_every_public_name_is_there() -> None:
    assert set(coexec.__all__) <= set(dir(coexec))
    for name in coexec.__all__:
        assert getattr(coexec, name) is not None
    assert coexec.optim.SGD.__module__ == "coexec.autodiff.optimizers"
    assert issubclass(coexec.CoexecError, Exception)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'coexec' has no attribute 'trian'"):
        _ = coexec.trian


def test_the_command_line_imports_no_device_library_to_show_help() -> None:
    done = python(
        "import sys; from coexec.cli import main\n"
        "sys.argv = ['coexec', '--help']\n"
        "try: main()\n"
        "except SystemExit: print('PYOPENCL' if 'pyopencl' in sys.modules else 'NONE')"
    )
    assert done.out.endswith("NONE\n")
