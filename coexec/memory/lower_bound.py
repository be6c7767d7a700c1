"""Bytes that a training step needs whatever is recomputed: what searches leave out by."""

from __future__ import annotations

from itertools import accumulate

from coexec.memory.lifetimes import plain_events
from coexec.memory.problem import StepNode, StepProblem


def peak_bound(problem: StepProblem) -> int:
    """Bytes that no choice of what to recompute goes below, by the lifetimes.

    While a node runs, there is what it uses itself, and whatever others before it have made for
    others behind it and nobody makes again for those: what the backward pass makes, and what a node
    of the forward pass reads.
    """
    events = plain_events(problem)
    born: dict[int, int] = {}
    until: dict[int, int] = {}
    for index, event in enumerate(events):
        forward = problem.nodes[index].forward
        for root in event.writes:
            born.setdefault(root, index)
        for root in (*event.reads, *event.writes):
            if forward or root not in problem.producer:
                until[root] = index
    change = [0] * (len(events) + 1)
    for root, end in until.items():
        if root in born:
            change[born[root]] += problem.nbytes[root]
            change[end + 1] -= problem.nbytes[root]
    most = 0
    for index, there in enumerate(accumulate(change[:-1])):
        own = {*events[index].reads, *events[index].writes}
        waiting = (r for r in own if r in until and born.get(r, len(events)) <= index <= until[r])
        others = there - sum(problem.nbytes[root] for root in waiting)
        most = max(most, others + own_bytes(problem, problem.nodes[index]))
    return most


def widest_node(problem: StepProblem) -> int:
    """Bytes that the node takes which needs most by itself."""
    return max((own_bytes(problem, node) for node in problem.nodes), default=0)


def own_bytes(problem: StepProblem, node: StepNode) -> int:
    """Bytes that a node reads, writes and works in; what it may write over counts once."""
    roots = {problem.roots[tensor] for tensor in (*node.reads, *node.writes)}
    shared = max((problem.nbytes[written] for written, _ in node.in_place), default=0)
    return sum(problem.nbytes[root] for root in roots) - shared + node.workspace
