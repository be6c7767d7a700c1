"""Planning by one policy; options: ``policy``, or ``auto``, which tries all fast ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import coexec
from bench.networks import network
from bench.worker import Job
from coexec.placement.divide import divide
from coexec.placement.policies.exact import exact
from coexec.placement.policies.single_best import single_best
from coexec.placement.policies.table import AUTO, EXACT, POLICIES, rank
from coexec.placement.problem import Problem, Schedule
from coexec.placement.timeline import simulate

EXACT_SECONDS = 60.0


class PlanningJob:
    """The same problem planned again and again, each time without what was computed before."""

    def __init__(self, policy: str, nodes: int) -> None:
        self.problem = network(nodes)
        self._facts: dict[str, Any] = {}
        self._schedule: Schedule | None = None
        self._plan: Callable[[Problem], Schedule] = {
            AUTO: lambda problem: rank(problem).chosen.schedule,
            EXACT: self._exactly,
        }.get(policy) or POLICIES[policy]

    def run(self, count: int) -> None:
        for _ in range(count):
            self._schedule = self._plan(replace(self.problem))

    def outputs(self) -> Sequence[Any]:
        return []

    def facts(self) -> Mapping[str, Any]:
        """The makespan of the plan, once there is one."""
        if self._schedule is None:
            return {}
        plain = divide(self.problem, self._schedule)
        makespan_us = simulate(plain.problem, plain.schedule).makespan_us
        return {**self._facts, "predicted_ms": makespan_us / 1e3}

    def _exactly(self, problem: Problem) -> Schedule:
        found = exact(problem, single_best(problem), EXACT_SECONDS)
        self._facts["proved"] = float(found.proved)
        return found.schedule


class Planner:
    """Cases of planning by one policy."""

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def describe(self) -> Mapping[str, Any]:
        return {"library": "coexec", "version": coexec.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("planning uses no device")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        return PlanningJob(self.policy, case["spec"]["nodes"])


def open_peer(options: Mapping[str, Any]) -> Planner:
    """A planner by the policy that the options name."""
    return Planner(options["policy"])
