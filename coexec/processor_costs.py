"""What is known of processors: their measured limits and the times of calls in the past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from coexec.core.processor import Processor
from coexec.core.types import OpCall, TensorType, compute_dtype
from coexec.cost.model import MEASURED, ProcessorCosts
from coexec.cost.predicted import PredictedCosts, Predicting
from coexec.cost.store import CostStore
from coexec.memory.build_problem import Measure
from coexec.rates import machine_rates

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def processor_costs(
    processors: Mapping[str, Processor], observe: Callable[[str], None] = lambda _name: None
) -> dict[str, ProcessorCosts]:
    """What is known of each processor: limits (measured now if they never were) and past times.

    Those that predict their own times have them from there.
    """
    real = [name for name, each in processors.items() if not isinstance(each, Predicting)]
    rates = machine_rates(real, observe=observe).processors
    coexec_version = f"{version('coexec')} NumPy {np.__version__}"
    costs: dict[str, ProcessorCosts] = {}
    for name, processor in processors.items():
        store = CostStore(processor.describe(), coexec_version)
        if isinstance(processor, Predicting):
            costs[name] = PredictedCosts(processor, processor.rates(), store)
        else:
            costs[name] = ProcessorCosts(processor, rates[name], store)
    return costs


def step_measure(costs: ProcessorCosts) -> Measure:
    """Microseconds of a call of a training step on a processor."""
    return lambda call: _cost_us(costs, call)


def _cost_us(costs: ProcessorCosts, call: OpCall) -> float:
    """Microseconds of a call; in float16 by what was measured, else by the limits of the device.

    A fit to times in float32 alone would hold float16 for faster everywhere, by its bytes.
    """
    cost = costs.cost(call)
    if compute_dtype(call) != HALF.name or cost.source == MEASURED:
        return cost.time.median_us
    rates = costs.rates
    slower = rates.gflops(SINGLE.name) / rates.gflops(HALF.name)
    return costs.cost(_in_single(call)).time.median_us * slower


def _in_single(call: OpCall) -> OpCall:
    """The same call on float32 operands."""

    def single(kind: TensorType | None) -> TensorType | None:
        return kind if kind is None or kind.dtype != HALF else TensorType(kind.shape, SINGLE)

    return replace(
        call, inputs=tuple(map(single, call.inputs)), outputs=tuple(map(single, call.outputs))
    )
