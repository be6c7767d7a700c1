"""The digest of a call's OpenCL code: what changes it, and what does not. No device is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.processors.opencl import sources
from coexec.processors.opencl.choose import Choice, always, by_default, named
from coexec.processors.opencl.digest import code_digest
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.table import KERNELS

FACTS = DeviceFacts("made up", "nobody", True, True, 1024, 1 << 15, 2, 64, 32, "cpu")


def product(side: int, name: str = "") -> OpCall:
    kind = TensorType((side, side), np.dtype("float32"))
    return OpCall("MatMul", (kind, kind), {}, (kind,), version=21, name=name)


def digest(call: OpCall) -> str:
    return code_digest(call, FACTS, by_default, fusing=True)


def test_names_do_not_count_and_sizes_do() -> None:
    assert digest(product(256, "a")) == digest(product(256, "b"))
    assert digest(product(256)) != digest(product(512))


def test_variant_and_tuned_values_count() -> None:
    call = product(256)
    assert code_digest(call, FACTS, named("naive"), fusing=True) != digest(call)
    choice = by_default(KERNELS["MatMul"], call, FACTS)
    tunable, values = next((n, v) for n, v in choice.variant.space.items() if len(v) > 1)
    other = next(value for value in values if value != choice.values[tunable])
    tuned = Choice(choice.variant, {**choice.values, tunable: other})
    assert code_digest(call, FACTS, always(tuned), fusing=True) != digest(call)
    assert code_digest(call, replace(FACTS, vector_bytes=64), by_default, True) != digest(call)


def test_the_text_of_kernels_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(product(256))
    text = sources.kernel_source
    monkeypatch.setattr(sources, "kernel_source", lambda family: f"{text(family)}\n// changed")
    assert digest(product(256)) != before
