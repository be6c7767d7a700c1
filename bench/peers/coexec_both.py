"""A runtime that has the cores of both processors of a case; its role says which runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import coexec
from bench.peers.coexec_pair import trainer_of
from bench.peers.coexec_together import ALONE, Followed, Trained
from bench.worker import Job
from coexec.api import LAST_RESORT, open_all
from coexec.core.plan import Plan
from coexec.session import Session


class BothCores:
    """Sessions and trainings on one processor, without a plan."""

    def describe(self) -> Mapping[str, Any]:
        return {"library": "coexec", "version": coexec.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("its processors are measured by themselves")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        """Make a case ready.

        Raises:
            RuntimeError: the last resort has a part in it.
        """
        spec = case["spec"]
        name = spec["on_both_cores"][ALONE[case["role"]]]
        processors = open_all([name])
        data = dict(np.load(spec["data"]))
        model = coexec.load(spec["onnx"], shapes={"x": data["x"].shape})
        if spec.get("trains", False):
            trained = Trained(trainer_of(model, processors), data, {})
            _require_own(trained.trainer.plan)
            return trained
        followed = Followed(Session(model, processors), {"x": data["x"]}, {})
        _require_own(followed.session.plan)
        return followed


def _require_own(plan: Plan) -> None:
    if LAST_RESORT in plan.processors.values():
        raise RuntimeError(f"not all on this processor: {plan.table()}")


def open_peer(_options: Mapping[str, Any]) -> BothCores:
    """A peer for both roles."""
    return BothCores()
