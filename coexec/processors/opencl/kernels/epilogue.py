"""Products that finish their results (``epilogue.cl``), or are followed by a kernel that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    inp,
    out,
)
from coexec.processors.opencl.fusion import chain as chains
from coexec.processors.opencl.fusion.chain import chain_of
from coexec.processors.opencl.fusion.finished import Finished, finished_of
from coexec.processors.opencl.fusion.operators import definition
from coexec.processors.opencl.kernels.chain import step_lines

RESULT = out(0)


def lower_finished(call: OpCall, lower: Callable[[OpCall], Lowering]) -> Lowering:
    """The product's kernels, which finish what they store; or the chain's kernel behind them."""
    own = finished_of(call)
    core = lower(own.core)
    writing = [each for each in core.calls if RESULT in each.args]
    needed = "tensors" if len(own.chain.inputs) > 1 else "values"
    if writing and all(each.finishes in (needed, "tensors") for each in writing):
        calls = tuple(_finishing(each, own) if each in writing else each for each in core.calls)
        return replace(core, calls=calls)
    behind = (
        replace(each, args=_placed(each, own)) for each in _stated(lower(own.chain), own.chain)
    )
    return replace(core, calls=(*_stated(core, own.core), *behind))


def _stated(lowering: Lowering, call: OpCall) -> tuple[KernelCall, ...]:
    """Kernels of which the last one states the operator's work, unless they state their own."""
    if not lowering.calls or any(each.flop or each.bytes for each in lowering.calls):
        return lowering.calls
    *others, last = lowering.calls
    work = definition(call).work(call)
    return (*others, replace(last, flop=work.flop, bytes=work.bytes))


def _placed(call: KernelCall, own: Finished) -> tuple[Argument, ...]:
    """Arguments of a chain's kernel as operands of the fused call: it works on the result."""
    return tuple(
        operand_of(arg.index, own) if isinstance(arg, Operand) and arg.kind == "input" else arg
        for arg in call.args
    )


def operand_of(index: int, own: Finished) -> Operand:
    """Operand ``index`` of the chain among those of the fused call."""
    if index == own.place:
        return RESULT
    return inp(len(own.core.inputs) + index - (index > own.place))


def _finishing(call: KernelCall, own: Finished) -> KernelCall:
    """A product's kernel with the chain in it."""
    tensors = [i for i in range(len(own.chain.inputs)) if i != own.place]
    numbers = chain_of(own.chain).numbers
    dtype = own.chain.output(0).dtype
    compute = "float32" if dtype == np.float16 else dtype.name
    more: tuple[Argument, ...] = (
        *(operand_of(index, own) for index in tensors),
        *(Scalar(value, compute) for value in numbers),
    )
    return replace(
        call,
        args=(*call.args, *more),
        defines={**call.defines, **epilogue_text(own)},
        flop=call.flop and call.flop + chains.work(own.chain).flop,
        bytes=call.bytes and call.bytes + sum(own.chain.input(i).nbytes for i in tensors),
    )


def epilogue_text(own: Finished) -> Mapping[str, str | int | float]:
    """The defines of ``epilogue.cl``."""
    chain = chain_of(own.chain)
    functions, statements = step_lines(chain)
    tensors = [i for i in range(len(own.chain.inputs)) if i != own.place]
    numbers = range(len(chain.numbers))
    parameters = [f"__global const T *other{index}" for index in tensors]
    parameters += [f"const ACC number{index}" for index in numbers]
    loads = [f"const V v{index} = LOAD(other{index} + (at));" for index in tensors]
    loads += [f"const ACC n{index} = number{index};" for index in numbers]
    names = [f"other{index}" for index in tensors] + [f"number{index}" for index in numbers]
    return {
        **functions,
        "FINISH_PARAMETERS": "".join(f", {text}" for text in parameters),
        "FINISH_ARGUMENTS": "".join(f", {name}" for name in names),
        "FINISH_VALUE": f"v{own.place}",
        "FINISH_LOADS(V, LOAD, at)": " ".join(loads),
        "FINISH_STEPS(V, NUMBER)": statements,
        "FINISH_RESULT": f"t{chain.results[0]}",
    }
