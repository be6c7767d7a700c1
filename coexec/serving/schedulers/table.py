"""All schedulers by name."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.serving.request import Scheduler
from coexec.serving.schedulers.fixed import fixed
from coexec.serving.schedulers.heft import heft
from coexec.serving.schedulers.least_slack import least_slack
from coexec.serving.schedulers.shortest_expected_latency import shortest_expected_latency

SCHEDULERS: Mapping[str, Scheduler] = {
    "fixed": fixed,
    "shortest_expected_latency": shortest_expected_latency,
    "least_slack": least_slack,
    "heft": heft,
}
