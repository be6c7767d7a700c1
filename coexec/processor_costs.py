"""What is known of processors: their measured limits and the times of calls in the past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

import numpy as np

from coexec.core.processor import Processor
from coexec.cost.model import ProcessorCosts
from coexec.cost.predicted import PredictedCosts, Predicting
from coexec.cost.store import CostStore
from coexec.rates import machine_rates


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
