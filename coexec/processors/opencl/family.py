"""How a kernel family is declared: operators, variants, tuning space, launch geometry.

Compiler, tests, tuner and benchmarks read this one declaration. A family ``foo`` is the pair
``kernels/foo.py`` (a ``FAMILY: KernelFamily``) and ``kernels/foo.cl``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from coexec.core.types import OpCall, TensorType

UnitKind = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class DeviceFacts:
    """What a kernel may depend on. ``alignment`` in bytes holds for every buffer's start.

    ``vector_bytes`` is the width of the device's own vector registers (4: it computes on scalars,
    as most GPUs do), ``unit_kind`` what a compute unit is: ``cpu`` (a core with caches and few
    registers) or ``gpu`` (many work-items at once, which hide each other's waiting). ``on_chip``:
    local memory is the compute unit's own; where not (Mali, CPUs) it is global memory under another
    name, and a copy there gains nothing. ``prepares``: what kernels make of constants is kept from
    run to run. ``dots``: how the device multiplies bytes four at a time (kernels/byte_dots.cl).
    """

    name: str
    vendor: str
    fp16: bool
    fp64: bool
    max_work_group_size: int
    local_bytes: int
    compute_units: int
    alignment: int
    vector_bytes: int = 64
    unit_kind: UnitKind = "cpu"
    prepares: bool = True
    dots: Literal["none", "vnni"] = "none"
    on_chip: bool = True


@dataclass(frozen=True)
class Operand:
    """A tensor argument: input or output ``index`` of the call, or scratch block ``index``.

    ``prepared`` blocks are the compiler's: scratch that is filled once (preparation.py).
    """

    kind: Literal["input", "output", "scratch", "prepared"]
    index: int


@dataclass(frozen=True)
class Scalar:
    """A by-value argument; ``dtype`` is a NumPy name (``int32``, ``float32``, ...)."""

    value: int | float
    dtype: str = "int32"

    def pack(self) -> np.generic:
        scalar: np.generic = np.dtype(self.dtype).type(self.value)
        return scalar


Argument = Operand | Scalar


def inp(index: int) -> Operand:
    """Input ``index`` of the call."""
    return Operand("input", index)


def out(index: int) -> Operand:
    """Output ``index`` of the call."""
    return Operand("output", index)


def scratch(index: int) -> Operand:
    """Scratch block ``index`` of the lowering."""
    return Operand("scratch", index)


def i32(value: int) -> Scalar:
    """A kernel argument of type ``int``."""
    return Scalar(int(value), "int32")


def f32(value: float) -> Scalar:
    """A kernel argument of type ``float``."""
    return Scalar(float(value), "float32")


@dataclass(frozen=True)
class KernelCall:
    """One enqueue: kernel ``entry`` of ``kernels/<family>.cl`` built with ``defines``.

    ``global_size`` must be a multiple of ``local_size`` where that is given (OpenCL 1.2).
    ``flop`` and ``bytes`` are this kernel's own work; where all kernels of a lowering leave them at
    0, the operator's work goes to the last one. ``prepares`` marks a kernel that writes blocks of
    scratch which later kernels only read, or leave as they found them; ``layout`` one of those that
    only rearranges data (packing).
    ``finishes`` says what of fused elementwise operators the kernel applies to each result before
    it stores it (``epilogue.cl``): functions of the value, or also of tensors like the result.
    ``meets``: it waits for kernels of other processors.
    """

    family: str
    entry: str
    args: tuple[Argument, ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None = None
    defines: Mapping[str, str | int | float] = field(default_factory=dict)
    flop: int = 0
    bytes: int = 0
    layout: bool = False
    prepares: bool = False
    finishes: Literal["nothing", "values", "tensors"] = "nothing"
    meets: bool = False


@dataclass(frozen=True)
class Lowering:
    """A call as kernels in order, and the scratch blocks (bytes) that they share.

    ``choice`` names the variant and the values it was made with (the compiler fills it in).
    """

    calls: tuple[KernelCall, ...]
    scratch: tuple[int, ...] = ()
    choice: str = ""


Applies = Callable[[OpCall, DeviceFacts], str | None]
Suited = Callable[[OpCall, DeviceFacts], Mapping[str, int]]
Lower = Callable[[OpCall, DeviceFacts, Mapping[str, int]], Lowering]


def always(_call: OpCall, _facts: DeviceFacts) -> str | None:
    """A variant without assumptions of its own."""
    return None


def nothing_special(_call: OpCall, _facts: DeviceFacts) -> Mapping[str, int]:
    """The first value of every tunable suits every call and device."""
    return {}


@dataclass(frozen=True)
class Variant:
    """One way to compute a family's operators.

    ``applies`` returns ``None`` or the reason why not. ``space`` lists the values of each tunable,
    the default first; ``suited`` names those that a call or a device (its vector width, its kind)
    wants otherwise by default; ``lower`` receives one value for each. ``units`` are the kinds of
    compute units on which the variant is a default: elsewhere only who names it gets it (tests,
    tuned values). ``spares`` are values that take less working memory, the fastest first.
    """

    name: str
    lower: Lower
    applies: Applies = always
    space: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    suited: Suited = nothing_special
    units: tuple[UnitKind, ...] = ("cpu", "gpu")
    spares: tuple[Mapping[str, int], ...] = ()

    def defaults(self, call: OpCall, facts: DeviceFacts) -> dict[str, int]:
        """A value for each tunable, good without any tuning."""
        return {name: values[0] for name, values in self.space.items()} | dict(
            self.suited(call, facts)
        )


@dataclass(frozen=True)
class KernelFamily:
    """Operators (as identifiers, ``Conv`` or ``coexec::ConvWeightGrad``) and their variants.

    Variants stand best first; the last one, ``naive``, is the oracle on the device and takes every
    call the family supports at all (its ``applies`` is the family's support rule).
    """

    name: str
    operators: tuple[str, ...]
    variants: tuple[Variant, ...]

    @property
    def naive(self) -> Variant:
        return self.variants[-1]

    def choose(self, call: OpCall, facts: DeviceFacts) -> tuple[Variant | None, str]:
        """The first variant for this kind of compute unit that applies, the naive one last.

        ``None`` and the naive variant's reason where that one does not apply either.
        """
        for variant in self.variants[:-1]:
            if facts.unit_kind in variant.units and variant.applies(call, facts) is None:
                return variant, ""
        refusal = self.naive.applies(call, facts)
        return (self.naive, "") if refusal is None else (None, refusal)


C_TYPES = {
    "float16": "half",
    "float32": "float",
    "float64": "double",
    "int8": "char",
    "uint8": "uchar",
    "int16": "short",
    "uint16": "ushort",
    "int32": "int",
    "uint32": "uint",
    "int64": "long",
    "uint64": "ulong",
    "bool": "uchar",
}
"""OpenCL C storage type of each NumPy element type."""


HALF, DOUBLE = np.dtype(np.float16), np.dtype(np.float64)
STORED = frozenset(map(np.dtype, C_TYPES))
"""Types by themselves: NumPy makes up their names anew each time."""


def c_type(dtype: np.dtype[Any]) -> str:
    """``float32`` -> ``float``; raises ``KeyError`` for types OpenCL C has no name for."""
    return C_TYPES[dtype.name]


def refuse_types(types: Sequence[TensorType | None], facts: DeviceFacts) -> str | None:
    """The reason why a device cannot hold or compute with one of these types, else ``None``."""
    for kind in types:
        if kind is None:
            continue
        if kind.dtype not in STORED:
            return f"no OpenCL C type for {kind.dtype.name}"
        if kind.dtype == HALF and not facts.fp16:
            return "float16: the device has no cl_khr_fp16"
        if kind.dtype == DOUBLE and not facts.fp64:
            return "float64: the device has no cl_khr_fp64"
        if kind.size >= 2**31:
            return f"{kind}: more than 2^31 elements"
    return None


def ceil_to(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple (work sizes)."""
    return -(-value // multiple) * multiple
