"""Batch normalisation by lone work-items that walk planes: ``norm_planes.cl``, ``norm_flat.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.batch_norm import EPSILON, MOMENTUM, is_training
from coexec.ops.compressed import BLOCK
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    c_type,
    f32,
    i32,
    inp,
    out,
    scratch,
)

PART_ELEMENTS = 2048
"""Elements of a plane, or of small planes together, whose sums are joined to others: few enough for
their sums to be exact to a few roundings."""

TOGETHER = 4
"""Planes that the kernels walk side by side at most."""

MOST_FLAT = 144
"""Largest plane that is walked as part of a run (``norm_flat.cl``)."""

LEAST_RUN, LONG_RUN = 64, 512
"""Elements of a run: as long as there are runs for all work-items, and no shorter."""

LEAST_LANES = 4

Defines = dict[str, str | int | float]


@dataclass(frozen=True)
class Codes:
    """Tensors as blocks of codes of ``bits`` bits (``compress.cl``).

    The gradient reads words where it reads x, or the activation's result, otherwise; ``x_ends`` and
    ``result_ends`` belong to those words. The normalisation writes ``kept_x`` and ``kept_result``,
    words and ends, beside its result.
    """

    bits: int
    x_ends: Operand | None = None
    result_ends: Operand | None = None
    kept_x: tuple[Operand, ...] = ()
    kept_result: tuple[Operand, ...] = ()

    def defines(self) -> Defines:
        """What programs are built with."""
        present = {
            "X_CODES": self.x_ends,
            "RESULT_CODES": self.result_ends,
            "KEEP_X": self.kept_x,
            "KEEP_Y": self.kept_result,
        }
        return {"BITS": self.bits, **{name: 1 for name, own in present.items() if own}}


@dataclass(frozen=True)
class Epilogue:
    """What else the kernels do with each element, as macros and operands of ``norm_planes.cl``.

    ``activate`` is the text of ``ACTIVATE(type, v)``, ``residual`` what is added before. For the
    gradient ``mask`` is the text of ``MASK_GRADIENT(type, g, y)`` with ``activated`` as y, and
    ``masked`` receives the masked gradient (that of the residual).
    """

    activate: str = ""
    residual: Operand | None = None
    mask: str = ""
    activated: Operand | None = None
    masked: Operand | None = None
    codes: Codes | None = None

    def defines(self) -> Defines:
        found: Defines = self.codes.defines() if self.codes else {}
        if self.activate:
            found["ACTIVATE(type, v)"] = self.activate
        if self.mask:
            found["MASK_GRADIENT(type, g, y)"] = self.mask
        if self.residual or self.masked:
            found["RESIDUAL"] = 1
        return found

    def operands(self) -> tuple[Operand, ...]:
        """Those that are there, in the kernels' order."""
        kept = (*self.codes.kept_x, *self.codes.kept_result) if self.codes else ()
        found = (self.residual, *self.result(), *kept, self.masked)
        return tuple(o for o in found if o)

    def result(self) -> tuple[Operand, ...]:
        """The activation's result, as the gradient reads it."""
        ends = self.codes.result_ends if self.codes else None
        return tuple(o for o in (self.activated, ends) if o)

    def x(self) -> tuple[Operand, ...]:
        """Operand 0, as the gradient reads it."""
        ends = self.codes.x_ends if self.codes else None
        return (inp(0), ends) if ends else (inp(0),)


NOTHING_MORE = Epilogue()


@dataclass(frozen=True)
class Walk:
    """A call as (images, channels, inner) and the parts that its channels are walked in."""

    images: int
    channels: int
    inner: int
    images_per_part: int
    chunks: int
    chunk: int

    @classmethod
    def of(cls, call: OpCall, lanes: int) -> Walk:
        kind = call.input(0)
        images, channels = kind.shape[:2]
        inner = kind.size // (images * channels)
        if inner <= PART_ELEMENTS:
            planes = max(PART_ELEMENTS // inner // TOGETHER, 1) * TOGETHER
            return cls(images, channels, inner, min(images, planes), 1, inner)
        chunk = PART_ELEMENTS // lanes * lanes
        return cls(images, channels, inner, min(images, TOGETHER), inner // chunk, chunk)

    @property
    def parts(self) -> int:
        """Parts of a channel."""
        return -(-self.images // self.images_per_part) * self.chunks

    @property
    def sizes(self) -> tuple[Argument, ...]:
        """``PART_ARGUMENTS`` of ``norm_planes.cl``."""
        planes = (self.images, self.channels, self.inner)
        return tuple(map(i32, (*planes, self.images_per_part, self.chunks, self.chunk)))


def refuse_planes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why planes are no good vectors here, else ``None``."""
    if not call.op_type.startswith("BatchNormalization"):
        return "statistics are not those of channels"
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    kind = call.input(0)
    if kind.size == 0:
        return "no elements"
    if kind.size < LEAST_LANES * kind.shape[0] * kind.shape[1] and not _is_flat(call):
        return f"planes of less than {LEAST_LANES} elements"
    return None


def _is_flat(call: OpCall) -> bool:
    """Whether statistics are to be made of small planes."""
    kind = call.input(0)
    image, channels = kind.size // kind.shape[0], kind.shape[1]
    given = call.op_type == "BatchNormalization" and not is_training(call)
    return not given and image <= MOST_FLAT * channels and image >= LEAST_RUN


def granule_of(call: OpCall) -> int:
    """Channels whose planes are whole blocks of codes."""
    kind = call.input(0)
    return BLOCK // gcd(BLOCK, kind.size // (kind.shape[0] * kind.shape[1]))


def refuse_codes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why planes cannot be walked as blocks of codes, or not by all units, else ``None``."""
    kind = call.input(0)
    if kind.dtype != np.float32:
        return f"codes of {kind.dtype.name} have kernels of their own"
    if call.identifier == "BatchNormalization" and not is_training(call):
        return "codes are kept beside statistics of the batch"
    if kind.shape[1] % granule_of(call):
        return "a block belongs to two images"
    if granule_of(call) > 1 and not _is_flat(call):
        return "a block belongs to two planes"
    if granule_of(call) > 1 and kind.shape[1] // granule_of(call) < facts.compute_units:
        return "fewer runs of whole blocks than compute units"
    return None


def lanes_of(call: OpCall, facts: DeviceFacts) -> int:
    """Elements of a vector: a register's, fewer if a plane is smaller."""
    kind = call.input(0)
    inner = kind.size // (kind.shape[0] * kind.shape[1])
    return max(min(register_lanes(call, facts), 1 << (inner.bit_length() - 1)), LEAST_LANES)


def register_lanes(call: OpCall, facts: DeviceFacts) -> int:
    """Elements of a register."""
    register = facts.vector_bytes // np.dtype(accumulator(call)).itemsize
    return max(min(register, 16), LEAST_LANES)


def accumulator(call: OpCall) -> str:
    """NumPy name of the type of arithmetic."""
    return "float64" if call.input(0).dtype == np.float64 else "float32"


def lower_planes(
    call: OpCall,
    facts: DeviceFacts,
    params: Mapping[str, int],
    epilogue: Epilogue = NOTHING_MORE,
) -> Lowering:
    """Whole channels, slices of few channels, or planes where statistics are given."""
    lanes = lanes_of(call, facts)
    walk = Walk.of(call, lanes)
    items = facts.compute_units * params["ITEMS"]
    if call.op_type == "BatchNormalization" and not is_training(call):
        return _given(call, walk, lanes, items, epilogue)
    if _is_flat(call):
        return _flat(call, walk, facts, items, epilogue)
    if walk.channels >= 2 * facts.compute_units or walk.parts == 1:
        return _whole(call, walk, lanes, items, epilogue)
    return _slices(call, walk, lanes, items, epilogue)


def _defines(call: OpCall, lanes: int, form: int, epilogue: Epilogue) -> Defines:
    x = call.input(0).dtype
    statistics = call.input(3).dtype if call.has_input(3) else call.input(1).dtype
    return {
        "T": c_type(x),
        "ACC": compute_type(x),
        "TP": c_type(call.input(1).dtype),
        "TS": c_type(statistics),
        "V": lanes,
        "SAME": int(c_type(x) == compute_type(x)),
        "FORM": form,
        "GRADIENT": int(call.op_type == "BatchNormalizationGrad"),
        **epilogue.defines(),
    }


def _operands(call: OpCall, epilogue: Epilogue, unused: int) -> tuple[Argument, ...]:
    """Operands of a kernel that writes the result; ``unused``: scratch for outputs not in use."""
    more = epilogue.operands()
    if call.op_type == "BatchNormalizationGrad":
        targets = (out(i) if call.has_output(i) else scratch(unused) for i in (1, 2))
        return (*epilogue.x(), inp(1), inp(2), *more, out(0), *targets)
    running = int(call.has_output(1)) + 2 * int(call.has_output(2))
    new = (out(i) if call.has_output(i) else inp(i + 2) for i in (1, 2))
    return (inp(0), inp(1), inp(2), *more, out(0), inp(3), inp(4), *new, i32(running))


def _numbers(call: OpCall) -> tuple[Argument, ...]:
    epsilon = f32(float(call.attribute("epsilon", EPSILON)))
    if call.op_type == "BatchNormalizationGrad":
        return (epsilon,)
    return epsilon, f32(float(call.attribute("momentum", MOMENTUM)))


def _parameter_bytes(call: OpCall) -> int:
    return call.input(1).nbytes


def _whole(call: OpCall, walk: Walk, lanes: int, items: int, epilogue: Epilogue) -> Lowering:
    per_item = -(-walk.channels // items)
    gradient = call.op_type == "BatchNormalizationGrad"
    kernel = KernelCall(
        family="norm_planes",
        entry="batch_grad_whole" if gradient else "batch_whole",
        args=(*_operands(call, epilogue, 0), *walk.sizes, i32(per_item), *_numbers(call)),
        global_size=(-(-walk.channels // per_item),),
        local_size=(1,),
        defines=_defines(call, lanes, 0, epilogue),
    )
    return Lowering((kernel,), (_parameter_bytes(call),) if gradient else ())


def _flat(call: OpCall, walk: Walk, facts: DeviceFacts, items: int, epilogue: Epilogue) -> Lowering:
    """Even shares of the runs that the small planes of neighbouring channels make."""
    gradient = call.op_type == "BatchNormalizationGrad"
    lanes = register_lanes(call, facts)
    image = walk.channels * walk.inner
    run = min(max(image // (2 * facts.compute_units), LEAST_RUN), LONG_RUN)
    granule = granule_of(call) if epilogue.codes else 1
    granules = walk.channels // granule
    runs = min(image // run, granules)
    items = min(items, runs)
    fields = 5 if gradient else 3
    slot = -(-granules // runs) * granule * max(walk.inner, fields) + 2 * lanes
    slot = -(-slot // lanes) * lanes
    sizes = (walk.images, walk.channels, walk.inner, granule, runs, slot)
    operands = _operands(call, epilogue, 1)
    kernel = KernelCall(
        family="norm_flat",
        entry="batch_grad_flat" if gradient else "batch_flat",
        args=(*operands, scratch(0), *map(i32, sizes), *_numbers(call)),
        global_size=(items,),
        local_size=(1,),
        defines={k: v for k, v in _defines(call, lanes, 0, epilogue).items() if k != "FORM"},
    )
    records = (fields + 1) * np.dtype(accumulator(call)).itemsize
    return Lowering((kernel,), (items * slot * records, _parameter_bytes(call)))


def _slices(call: OpCall, walk: Walk, lanes: int, items: int, epilogue: Epilogue) -> Lowering:
    """Sums of slices, then results, each item of which joins the sums of its channel."""
    gradient = call.op_type == "BatchNormalizationGrad"
    per_slice = -(-walk.parts // -(-items // walk.channels))
    slices = -(-walk.parts // per_slice)
    defines = _defines(call, lanes, 1, epilogue)
    read: tuple[Argument, ...] = epilogue.x()
    if gradient:
        read += (inp(2), *epilogue.result())
    where = (*walk.sizes, i32(per_slice))
    names = ("batch_grad_sums", "batch_grad_result") if gradient else ("batch_sums", "batch_result")
    operands = (
        (*read, scratch(0), *where),
        (*_operands(call, epilogue, 1), scratch(0), *where, *_numbers(call)),
    )
    calls = tuple(
        KernelCall("norm_planes", name, args, (slices, walk.channels), (1, 1), defines)
        for name, args in zip(names, operands, strict=True)
    )
    fields = (5 if gradient else 3) * np.dtype(accumulator(call)).itemsize
    return Lowering(calls, (slices * walk.channels * fields, _parameter_bytes(call)))


def _given(call: OpCall, walk: Walk, lanes: int, items: int, epilogue: Epilogue) -> Lowering:
    rows = walk.images * walk.channels
    per_item = -(-rows // items)
    numbers = (walk.images, walk.channels, walk.inner, per_item)
    kernel = KernelCall(
        family="norm_planes",
        entry="batch_given",
        args=(
            *(inp(i) for i in range(5)),
            *epilogue.operands(),
            out(0),
            *map(i32, numbers),
            f32(float(call.attribute("epsilon", EPSILON))),
        ),
        global_size=(-(-rows // per_item),),
        local_size=(1,),
        defines=_defines(call, lanes, 2, epilogue),
    )
    return Lowering((kernel,))
