"""Let activations leave the device between their last use forward and their first use backward.

Behind its last reader of the forward pass an activation starts on its way out; once it is out, its
memory is free. A copy comes back ahead of the first reader of the backward pass, and all readers
from there on read that. Which ones, and when: :mod:`coexec.memory.paging`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.pages import Page
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import type_of
from coexec.ops.paging import IN, OUT, PREDICTED, WAIT
from coexec.passes.insert import Inserter, New
from coexec.passes.kept import FORWARD, Kept, forward_readers, kept_tensors

PAGING = "paging"
"""Phase of what brings activations back."""


def page_activations(graph: ir.Graph, pages: Sequence[Page]) -> None:
    """Page activations of ``graph``, a training step in the order in which it runs; in place.

    Raises:
        ModelError: a page is of no activation that the step keeps, or of a node that is not there.
    """
    kept = {str(each.value.name): each for each in kept_tensors(graph)}
    nodes = {str(node.name): node for node in graph}
    unknown = [
        name
        for page in pages
        for name, known in ((page.tensor, kept), (page.gone, nodes), (page.fetched, nodes))
        if name not in known
    ]
    if unknown:
        raise ModelError(
            f"this step has no {', '.join(unknown[:3])}: these activations cannot leave the "
            "device; plan the memory again for this model and these shapes"
        )
    paging = _Paging(graph)
    # Nodes behind one anchor stand in the order of their insertion, the last one first.
    stored = {page.tensor: paging.leave(kept[page.tensor], page, nodes) for page in pages[::-1]}
    for page in _by_first_use(pages, kept, graph):
        paging.fetch(kept[page.tensor], stored[page.tensor], page, nodes)


def _by_first_use(pages: Sequence[Page], kept: dict[str, Kept], graph: ir.Graph) -> list[Page]:
    places = {node: number for number, node in enumerate(graph)}

    def first(page: Page) -> tuple[int, str]:
        return min(places[use.node] for use in kept[page.tensor].uses), page.tensor

    return sorted(pages, key=first)


class _Paging:
    def __init__(self, graph: ir.Graph) -> None:
        self.inserter = Inserter(graph)
        self.places = {node: number for number, node in enumerate(graph)}

    def leave(self, kept: Kept, page: Page, nodes: dict[str, ir.Node]) -> ir.Value:
        """The page, once it is out: a value that readers of ``kept`` do not see yet."""
        producer = kept.value.producer()
        assert producer is not None
        readers = [node for node in forward_readers(kept.value) if node in self.places]
        last = max((producer, *readers), key=self.places.__getitem__)
        (out,) = self.inserter.behind(last, New(OUT, [kept.value]))
        start = _marked(out, producer, FORWARD)
        gone = nodes[page.gone]
        wait = New(WAIT, [out, kept.value], {PREDICTED: 0.0})
        (stored,) = self.inserter.behind(start if gone is last else gone, wait)
        _marked(stored, producer, FORWARD)
        return stored

    def fetch(self, kept: Kept, stored: ir.Value, page: Page, nodes: dict[str, ir.Node]) -> None:
        """Bring a copy back and let all late readers read it."""
        first = min((use.node for use in kept.uses), key=self.places.__getitem__)
        (copy,) = self.inserter.before(nodes[page.fetched], New(IN, [stored]))
        wait = New(WAIT, [copy], {PREDICTED: page.wait_us})
        (there,) = self.inserter.before(first, wait)
        producer = kept.value.producer()
        assert producer is not None
        for value in (copy, there):
            _marked(value, producer, PAGING)
        views: dict[tuple[int, ...], ir.Value] = {type_of(kept.value).shape: there}
        for use in kept.uses:
            shape = type_of(use.value).shape
            if shape not in views:
                constant = self.inserter.builder.constant(np.array(shape, np.int64), "int64")
                reshape = New("Reshape", [there, constant], domain="")
                (views[shape],) = self.inserter.before(first, reshape)
            use.node.replace_input_with(use.position, views[shape])


def _marked(value: ir.Value, source: ir.Node, phase: str) -> ir.Node:
    """The node of a value, with the layer of ``source`` and its phase."""
    node = value.producer()
    assert node is not None
    layer = str(source.metadata_props.get(SOURCE) or source.name)
    node.metadata_props.update({PHASE: phase, SOURCE: layer})
    return node
