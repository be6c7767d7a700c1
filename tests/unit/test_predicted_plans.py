"""What plans for phones predict is what following them takes, on several processors too."""

from __future__ import annotations

import pytest
import simpy

from coexec.api import load
from coexec.core.soc_file import find_soc
from coexec.frontend import load as load_text
from coexec.placement.build_problem import begins_kernel
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.ticket import Knowledge
from coexec.runtime.executor import Executor
from coexec.simulation.work import Job, Work
from coexec.study.plans import Desk
from coexec.zoo.catalog import build
from tests.graphs import parse


@pytest.fixture(scope="module")
def desk() -> Desk:
    options = SimulatedOptions(numerics=NONE)
    return Desk(load(build("vit_tiny", 1)), find_soc("snapdragon-835"), options)


@pytest.mark.parametrize("strategy", ["single_best", "chain"])
def test_many_small_copies_take_as_long_as_predicted(desk: Desk, strategy: str) -> None:
    """A transformer in some sixty launches with a hundred copies: none of them is free."""
    placed = desk.placed(strategy)
    phone = desk.phone("idle")
    feeds = {name: array for name, array in desk.feeds.items() if name in placed.program.inputs}
    Executor(placed.program, desk.opened(phone)).run(feeds)
    copies = placed.record()["copies"]
    assert isinstance(copies, int)
    assert (copies > 50) == (strategy == "chain")
    assert placed.plan.predicted_us == pytest.approx(phone.engine.now_us, rel=0.05)


def test_a_node_joins_a_kernel_only_where_that_makes_its_operand_for_it_alone() -> None:
    text = (
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z) "
        "{ [first] a = Relu(x) [joins] b = Exp(a) [shared] c = Neg(b) [left] y = Exp(c) "
        "[right] z = Neg(c) }"
    )
    graph = load_text(parse(text)).graph
    begins = {str(node.name): begins_kernel(node) for node in graph}
    expected = {"first": True, "joins": False, "shared": False, "left": True, "right": True}
    assert begins == expected


def test_the_host_knows_so_long_after_the_end_whenever_it_begins_to_wait() -> None:
    job = Job("gpu", Work([1.0], [0.0], [0.0], [0.0]), simpy.Environment().event())
    job.ends_us = [100.0]
    assert Knowledge(lambda: 50.0).learn(job, 100.0) == 50
    assert Knowledge(lambda: 50.0).learn(job, 120.0) == 30
    knowledge = Knowledge(lambda: 50.0)
    assert knowledge.learn(job, 500.0) == 0
    assert knowledge.learn(job, 500.0) == 0
