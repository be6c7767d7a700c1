"""Kernel files and what lowerings say of their kernels, without a device."""

from __future__ import annotations

import re
from importlib import resources
from typing import cast

import numpy as np
import pyopencl as cl
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.types import Region
from coexec.ops.opdef import Example, OpDef
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import lower_node
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.family import DeviceFacts, KernelCall
from coexec.processors.opencl.sources import check_types, kernel_source, program_text

FACTS = DeviceFacts("any", "any", True, True, 256, 1 << 15, 4, 64)
FILES = sorted(
    path.name.removesuffix(".cl")
    for path in resources.files("coexec.processors.opencl.kernels").iterdir()
    if path.name.endswith(".cl")
)
PRODUCTS = [
    pytest.param(OPERATORS[name], example, id=f"{name}-{i}")
    for name in ("Conv", "Gemm", "MatMul")
    for i, example in enumerate(OPERATORS[name].examples)
]


class Device:
    """What is asked of a device of OpenCL."""

    name = "small "
    extensions = "cl_khr_fp64 cl_khr_icd"


@pytest.mark.parametrize(("word", "name"), [("half", "float16"), ("double", "")])
def test_programs_with_an_element_type_that_a_device_lacks_are_refused(
    word: str, name: str
) -> None:
    call = KernelCall("cast", "cast", (), (1,), defines={"SRC": "float", "DST": word})
    sources = [ProgramSource("cast", program_text(call))]
    device = cast(cl.Device, Device())
    if not name:
        check_types(device, sources)
        return
    with pytest.raises(ProcessorError, match=rf"^small: .* computes in {name} \(cl_khr_fp16\)"):
        check_types(device, sources)


@pytest.mark.parametrize("name", FILES)
def test_included_files_stand_in_their_places(name: str) -> None:
    """Each shared part once, so that nothing is defined twice, and no line left to a driver."""
    text = kernel_source(name)
    assert "#include" not in text
    assert text.count("#define CAT_(") <= 1
    assert text.count("inline void gather(") <= 1


def test_products_and_sums_of_products_share_gathering() -> None:
    for name in ("packed", "dots"):
        assert "inline void gather(" in kernel_source(name)


@pytest.mark.parametrize("name", [name for name in FILES if "(DECLARE)" in kernel_source(name)])
def test_register_tiles_are_never_in_functions_of_their_own(name: str) -> None:
    """LLVM may take vectors of half the size there, of which a tile has more than registers."""
    before, *_ = kernel_source(name).partition("(DECLARE)\n")
    *_, head = re.findall(r"^\w[^;{}#]*^\{$", before, re.MULTILINE)
    assert "__kernel" in head or "always_inline" in head


@pytest.mark.parametrize(("op", "example"), PRODUCTS)
def test_packed_products_account_for_their_work(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    """Arithmetic sums to the operator's; only packing is layout, and it says what it moves."""
    call = example.call(op, example.draw(rng))
    (node,) = Region.alone(call).nodes
    calls = lower_node(node, FACTS, "packed").calls
    assert sum(kernel.flop for kernel in calls) == op.work(call).flop
    for kernel in calls:
        assert kernel.layout == (kernel.entry == "pack")
        assert kernel.bytes > 0
        assert (kernel.flop == 0) == kernel.layout
