"""A worker process: ``python -m bench.worker MODULE --options JSON``.

``MODULE`` (``bench.peers.torch_peer``) has ``open_peer(options) -> Peer``. Standard output belongs
to the protocol; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol, cast

import numpy as np

from coexec.base.others import Others

BURST_SECONDS = 2e-3
"""Calls shorter than this are timed in bursts of about this length, without waiting in between."""

LONGEST_BURST = 500


class Job(Protocol):
    """A case made ready. ``run`` makes so many calls and waits for the last one."""

    def run(self, count: int) -> None: ...

    def outputs(self) -> Sequence[Any]:
        """Results of the first call, as arrays, in the order that the case's kind defines."""

    def facts(self) -> Mapping[str, Any]:
        """JSON values for the report; may be empty."""


class Peer(Protocol):
    """A library that computes cases."""

    def describe(self) -> Mapping[str, Any]: ...

    def prepare(self, case: Mapping[str, Any]) -> Job:
        """Make a case ready and run it once; any exception says that the peer cannot."""

    def measure(self) -> Mapping[str, Any]: ...


def timed_calls(job: Job, seconds: float, burst: int) -> list[float]:
    """Seconds of each call, in bursts, until ``seconds`` have passed."""
    calls: list[float] = []
    begin = time.perf_counter()
    while not calls or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        job.run(burst)
        calls.append((time.perf_counter() - start) / burst)
    return calls


def burst_of(job: Job) -> int:
    """How many calls to time at once, by the faster of two."""
    one = 1e9
    for _ in range(2):
        start = time.perf_counter()
        job.run(1)
        one = max(min(one, time.perf_counter() - start), 1e-9)
    return max(1, min(LONGEST_BURST, int(BURST_SECONDS / one)))


class Server:
    """Answers requests for one peer; cases are prepared by ``who`` asks, with their bursts."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._jobs: dict[str, tuple[Job, int]] = {}
        self._others = Others()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``{"ok": ...}``, or ``{"error": ...}`` for whatever the peer raises."""
        actions: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "describe": lambda _: self.peer.describe(),
            "measure": lambda _: self.peer.measure(),
            "prepare": self._prepare,
            "outputs": self._outputs,
            "time": self._time,
            "drop": self._drop,
        }
        try:
            return {"ok": dict(actions[request["do"]](request))}
        except Exception as error:  # noqa: BLE001 - a peer's failure is a row of the report
            return {"error": f"{type(error).__name__}: {_short(str(error))}"}

    def _prepare(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self._drop(request)
        job = self.peer.prepare(request["case"])
        facts = job.facts()
        self._jobs[_who(request)] = job, burst_of(job)
        return facts

    def _outputs(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        job, _ = self._current(request)
        arrays = [np.asarray(array) for array in job.outputs()]
        np.savez(request["path"], *arrays)
        return {"arrays": len(arrays)}

    def _time(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        job, burst = self._current(request)
        self._others.look()
        began = time.perf_counter()
        calls = timed_calls(job, request["seconds"], burst)
        passed = time.perf_counter() - began
        others = self._others.look() * passed
        return {"calls": calls, "facts": job.facts(), "passed": passed, "others": others}

    def _drop(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self._jobs.pop(_who(request), None)
        return {}

    def _current(self, request: Mapping[str, Any]) -> tuple[Job, int]:
        found = self._jobs.get(_who(request))
        if found is None:
            raise RuntimeError("no case is prepared")
        return found


def _who(request: Mapping[str, Any]) -> str:
    return str(request.get("who", ""))


def serve(peer: Peer, requests: IO[str], answers: IO[str]) -> None:
    """Answer until the requests end."""
    server = Server(peer)
    for line in requests:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()


def pin(cores: Sequence[int]) -> None:
    """Keep this process and the threads that it will start on these cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _short(text: str) -> str:
    """The first lines of an error: enough for a table."""
    kept = " ".join(text.split())
    return kept if len(kept) <= 300 else f"{kept[:297]}..."


class _Absent:
    """Stands in for a library that cannot be opened: every request is refused with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def describe(self) -> Mapping[str, Any]:
        raise RuntimeError(self.reason)

    def prepare(self, case: Mapping[str, Any]) -> Job:
        raise RuntimeError(self.reason)

    def measure(self) -> Mapping[str, Any]:
        raise RuntimeError(self.reason)


def main() -> None:
    """Serve on the real standard output, and send every other print to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--cores", default="")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if arguments.cores:
        pin([int(core) for core in arguments.cores.split(",")])
    try:
        module = importlib.import_module(arguments.module)
        peer = cast(Peer, module.open_peer(json.loads(arguments.options)))
    except Exception as error:  # noqa: BLE001 - an absent library is a row that says so
        peer = _Absent(f"{type(error).__name__}: {_short(str(error))}")
    serve(peer, sys.stdin, answers)


if __name__ == "__main__":
    main()
