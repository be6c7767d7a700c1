"""What of a training step leaves its processor between the passes, by the times that are known."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import onnx_ir as ir

from coexec.base.errors import DeviceMemoryError, UsageError
from coexec.core.pages import Page, PageLink
from coexec.core.processor import Processor
from coexec.cost.page_link import page_link
from coexec.memory.build_problem import Measure, build_problem
from coexec.memory.paging import choose_pages
from coexec.memory.problem import StepProblem
from coexec.passes.kept import kept_tensors
from coexec.processor_costs import processor_costs, step_measure

_PAGERS: WeakKeyDictionary[Processor, Pager] = WeakKeyDictionary()


class Pager:
    """Chooses pages on a processor, by its times as they were when it was first asked.

    What was planned within a budget must be what is compiled: another choice takes other memory.
    """

    def __init__(self, link: PageLink, cost_us: Measure) -> None:
        self.link = link
        self.cost_us = cost_us

    def pages(self, graph: ir.Graph, share: float) -> list[Page]:
        """Pages for a ``share`` of what the step ``graph`` keeps, in the order in which it runs."""
        kept = {str(each.value.name) for each in kept_tensors(graph)}
        return choose_pages(build_problem(graph, (), self.cost_us), kept, self.link, share)

    def lost_us(self, problem: StepProblem, share: float) -> float:
        """About what a step loses to such pages, before they are in its graph."""
        pages = choose_pages(problem, problem.tensors, self.link, share)
        return sum(page.wait_us for page in pages)


def pager_of(processor: Processor) -> Pager:
    """The one pager of a processor.

    Raises:
        UsageError: it moves nothing beside computing.
        DeviceMemoryError: there is no room for pages at all.
    """
    if processor not in _PAGERS:
        if not processor.pages:
            raise UsageError(f"paging: {unable(processor)}; use an OpenCL processor")
        name = processor.describe().name
        costs = processor_costs({name: processor})[name]
        _PAGERS[processor] = Pager(page_link(costs), step_measure(costs))
    return _PAGERS[processor]


def unable(processor: Processor) -> str:
    """Why nothing of a step on this processor can be paged; "" if it can."""
    if not processor.pages:
        return f"{processor.describe().name} does not move tensors beside computing"
    try:
        pager_of(processor)
    except DeviceMemoryError as error:
        return str(error)
    return ""
