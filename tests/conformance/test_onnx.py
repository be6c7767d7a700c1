"""ONNX's own node cases through the backend class, on the reference and on OpenCL."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from coexec.backend import CoexecBackend
from coexec.base.errors import CoexecError
from coexec.core.types import Array
from tests.conformance.onnx_exceptions import EVERYWHERE, OPENCL
from tests.conftest import SUMMARY
from tests.runtimes import THOROUGH

README = Path(__file__).parents[2] / "README.md"


def _load() -> dict[str, Any]:
    with warnings.catch_warnings():
        # ONNX's generators overflow and divide by zero on purpose.
        warnings.simplefilter("ignore")
        return {case.name.removeprefix("test_"): case for case in load_model_tests(kind="node")}


def _exceptions(processor: str) -> Mapping[str, str]:
    if not processor.startswith("opencl:"):
        return EVERYWHERE
    return {**EVERYWHERE, **OPENCL}


CASES = _load()
PROCESSORS = {name: _exceptions(name) for name in ("reference", *THOROUGH)}
"""Runtimes that build slowly run every operator and variant in test_kernels.py."""


def excuse(name: str, exceptions: Mapping[str, str]) -> str | None:
    """Why a case is left out, or ``None``."""
    return next((why for p, why in exceptions.items() if fnmatch.fnmatchcase(name, p)), None)


@pytest.mark.parametrize(
    ("name", "processor"), [(name, processor) for processor in PROCESSORS for name in CASES]
)
def test_case_passes_or_is_declared(name: str, processor: str) -> None:
    why = excuse(name, PROCESSORS[processor])
    if why is None:
        _run(name, processor)
        return
    with pytest.raises((CoexecError, AssertionError)):  # refused, or another result; no crash
        _run(name, processor)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_readme_states_the_count(
    processor: str, record_property: Callable[[str, object], None]
) -> None:
    exceptions = PROCESSORS[processor]
    left_out = {name: why for name in CASES if (why := excuse(name, exceptions)) is not None}
    stated = re.findall(r"\*\*([\d,]+) of ([\d,]+)\*\*", README.read_text())
    expected = (f"{len(CASES) - len(left_out):,}", f"{len(CASES):,}")
    record_property(SUMMARY, _table(processor, left_out, expected))
    assert expected in stated, f"README.md must state {expected[0]} of {expected[1]}"


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_exception_excuses_something(processor: str) -> None:
    idle = [p for p in PROCESSORS[processor] if not fnmatch.filter(CASES, p)]
    assert not idle


def _run(name: str, processor: str) -> None:
    case = CASES[name]
    compiled = CoexecBackend.prepare(case.model, "CPU" if processor == "reference" else processor)
    for inputs, outputs in case.data_sets:
        results = compiled.run(list(inputs))
        expected = [_array(output) for output in outputs]
        Runner.assert_similar_outputs(expected, list(results), rtol=case.rtol, atol=case.atol)


def _array(value: Any) -> Array:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _table(processor: str, left_out: Mapping[str, str], counts: tuple[str, str]) -> str:
    lines = [f"ONNX node cases on {processor}: {counts[0]} of {counts[1]} pass; left out:"]
    reasons = sorted(set(left_out.values()))
    for reason in reasons:
        names = [name for name, why in left_out.items() if why == reason]
        shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        lines.append(f"  {len(names):4d}  {reason} ({shown})")
    return "\n".join(lines)
