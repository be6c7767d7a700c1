"""Which activations leave, when they go and come back, and what a step loses to that."""

from __future__ import annotations

import pytest

from coexec.core.pages import Page, PageLink
from coexec.memory.paging import AHEAD, LEAST_BYTES, choose_pages
from coexec.memory.problem import StepNode, StepProblem

DEPTH = 12
SIZE = 4 * LEAST_BYTES
LAYER_US = 100.0


def chain(size: int = SIZE) -> StepProblem:
    """Layers y[i] = f(y[i-1]), 100 us each; the gradient of layer i reads y[i] and takes 200."""
    forward = [
        StepNode(f"f{i}", (i - 1,) if i else (), (i,), LAYER_US, forward=True) for i in range(DEPTH)
    ]
    backward = [
        StepNode(f"b{i}", ((DEPTH + i + 1,) if i + 1 < DEPTH else ()) + (i,), (DEPTH + i,), 200.0)
        for i in reversed(range(DEPTH))
    ]
    names = [f"y{i}" for i in range(DEPTH)] + [f"dy{i}" for i in range(DEPTH)]
    return StepProblem((*forward, *backward), tuple(names), (size,) * (2 * DEPTH))


def link(us: float, *, beside: bool = True) -> PageLink:
    """A transfer of one activation takes so long."""
    return PageLink("host memory", us / SIZE, us / SIZE, beside=beside)


def pages(transfer_us: float, share: float, *, beside: bool = True) -> list[Page]:
    names = [f"y{i}" for i in range(DEPTH)]
    return choose_pages(chain(), names, link(transfer_us, beside=beside), share)


def places(found: list[Page]) -> list[tuple[int, int, int, int]]:
    """Of each page the numbers of its last node, where it is gone, fetched, and read again."""
    number = {node.name: index for index, node in enumerate(chain().nodes)}
    layers = [int(page.tensor[1:]) for page in found]
    return [
        (number[f"f{i + 1}"], number[page.gone], number[page.fetched], number[f"b{i}"])
        for i, page in zip(layers, found, strict=True)
    ]


def test_what_waits_longest_leaves_and_what_is_read_at_once_stays() -> None:
    assert [page.tensor for page in pages(50.0, 0.5)] == [f"y{i}" for i in range(6)]
    # The last layer's result is what the backward pass begins with.
    assert [page.tensor for page in pages(50.0, 1.0)] == [f"y{i}" for i in range(DEPTH - 1)]
    assert pages(50.0, 0.0) == []
    small = chain(LEAST_BYTES - 1)
    assert choose_pages(small, small.tensors, link(50.0), 1.0) == []
    assert choose_pages(chain(), ["y3"], link(50.0), 1.0)[0].tensor == "y3"


@pytest.mark.parametrize("transfer_us", [10.0, 90.0, 500.0])
def test_a_few_transfers_are_under_way_at_once(transfer_us: float) -> None:
    found = places(pages(transfer_us, 1.0))
    for node in range(2 * DEPTH):
        assert sum(last < node <= gone for last, gone, _, _ in found) <= AHEAD
        assert sum(fetched <= node < first for _, _, fetched, first in found) <= AHEAD
    for last, gone, fetched, first in found:
        assert last <= gone < DEPTH <= fetched <= first


def test_a_fast_link_costs_nothing_and_little_memory() -> None:
    found = pages(10.0, 0.8)
    assert sum(page.wait_us for page in found) == 0
    # A transfer is over within the next node, and begins in the one before the reader.
    assert all(gone == last + 1 for last, gone, _, _ in places(found))
    assert all(fetched == first - 1 for _, _, fetched, first in places(found))


def test_a_slow_link_is_waited_for() -> None:
    computing = LAYER_US * DEPTH + 200.0 * DEPTH
    found = pages(500.0, 0.8)
    moving = 2 * 500.0 * len(found)
    waits = sum(page.wait_us for page in found)
    assert moving - computing < waits < moving


def test_transfers_between_kernels_take_no_memory_and_all_of_their_time() -> None:
    found = pages(50.0, 0.8, beside=False)
    assert all((gone, fetched) == (last, first) for last, gone, fetched, first in places(found))
    # What leaves is in a cache of the system at once.
    assert [page.wait_us for page in found] == [50.0] * len(found)
